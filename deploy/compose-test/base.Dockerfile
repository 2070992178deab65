# Where the test builds: the usual Python image, with torch's wheel at hand for pip.
FROM python:3.11-slim-bookworm
COPY *.whl /wheels/
ENV PIP_FIND_LINKS=/wheels
