"""Rules for Prometheus and a dashboard for Grafana.

python -m tools.monitoring                       write both into deploy/
python -m tools.monitoring rules --set NAME=VALUE …   print the rules with other parameters
python -m tools.monitoring page URL FILE         draw the dashboard's panels with a Prometheus' data
"""
