"""maskq doctor: looks for what keeps a deployment from working.

check      what a check is: the interface of all of them, also of those in other packages
roles      which role this process has
command    the command, and its report
Every other module has the checks of one area. Packages add theirs by the entry points `maskq.doctor`.
"""
