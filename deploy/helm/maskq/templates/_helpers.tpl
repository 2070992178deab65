{{- define "maskq.fullname" -}}
{{- if contains "maskq" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-maskq" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What a selector names. dict: context, component, pool (optional). */}}
{{- define "maskq.selector" -}}
app.kubernetes.io/name: maskq
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
maskq/pool: {{ . }}
{{- end }}
{{- end }}

{{- define "maskq.labels" -}}
{{ include "maskq.selector" . }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version }}
{{- end }}

{{/* dict: context, image */}}
{{- define "maskq.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (default .context.Chart.AppVersion .image.tag) }}
{{- end -}}
{{- end }}

{{/* The Secret of a role. dict: context, role */}}
{{- define "maskq.secret" -}}
{{- $existing := index .context.Values.secrets.existing .role -}}
{{- if and (not $existing) (not .context.Values.secrets.create) -}}
{{- fail (printf "set secrets.existing.%s to a Secret's name, or secrets.create" .role) -}}
{{- end -}}
{{- default (printf "%s-%s" (include "maskq.fullname" .context) .role) $existing -}}
{{- end }}

{{/* A pool with what it leaves to poolDefaults, as JSON. dict: context, pool */}}
{{- define "maskq.pool" -}}
{{- mergeOverwrite (deepCopy .context.Values.poolDefaults) (deepCopy (default dict .pool)) | toJson -}}
{{- end }}

{{/* The name that jobs ask for, as a worker chooses it: a hub id, or a folder's name. */}}
{{- define "maskq.modelName" -}}
{{- if .modelName -}}{{ .modelName }}{{- else if hasPrefix "/" .model -}}{{ base .model }}{{- else -}}{{ .model }}{{- end -}}
{{- end }}

{{/* Hub ids, with their commits, that the Job fetches, as JSON. */}}
{{- define "maskq.pulled" -}}
{{- $wanted := list -}}
{{- range $name, $own := .Values.pools -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $pool := include "maskq.pool" (dict "context" $ "pool" $own) | fromJson -}}
{{- if and (eq $pool.weights "volume") (not (hasPrefix "/" $pool.model)) -}}
{{- $wanted = append $wanted (list $pool.model $pool.modelRevision) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- uniq $wanted | toJson -}}
{{- end }}

{{/* The drain, and what a container must have beyond it: StopTimes.container_s of maskq.process.stop_times. */}}
{{- define "maskq.gracePeriod" -}}
{{ add (int .) 60 }}
{{- end }}

{{- define "maskq.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "maskq.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables of every role. dict: context, settings (a list of maps; later ones count) */}}
{{- define "maskq.environment" -}}
{{- $values := .context.Values -}}
{{- $variables := dict
    "MASKQ_REDIS_URL_FILE" "/run/maskq/redis-url"
    "MASKQ_S3_BUCKET" $values.s3.bucket
    "AWS_DEFAULT_REGION" $values.s3.region
    "AWS_SHARED_CREDENTIALS_FILE" "/run/maskq/aws"
    "MASKQ_HEALTH_FILE" "/tmp/maskq-healthy" -}}
{{- if $values.s3.endpointUrl -}}{{- $_ := set $variables "MASKQ_S3_ENDPOINT_URL" $values.s3.endpointUrl -}}{{- end -}}
{{- if $values.metrics.enabled -}}
{{- $_ := set $variables "MASKQ_METRICS_PORT" (toString $values.metrics.port) -}}
{{- $_ := set $variables "MASKQ_METRICS_HOST" "0.0.0.0" -}}
{{- end -}}
{{- $traces := dict -}}
{{- if $values.traces.endpoint -}}
{{- $traces = merge (dict "OTEL_EXPORTER_OTLP_ENDPOINT" $values.traces.endpoint) $values.traces.settings -}}
{{- end -}}
{{- range $settings := prepend .settings $traces -}}
{{- range $name, $value := $settings -}}
{{- $_ := set $variables $name (toString $value) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $variables }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- if and $values.traces.endpoint $values.traces.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ $values.traces.headersSecret }}, key: headers}}
{{- end }}
{{- end }}

{{/* The first fields of a role's pod. dict: context, role, drain, at (node choice) */}}
{{- define "maskq.podBase" -}}
serviceAccountName: {{ include "maskq.fullname" .context }}-{{ .role }}
automountServiceAccountToken: false
# Else a Service would put variables such as MASKQ_GATEWAY_PORT into the pods, which maskq refuses as misspelled.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "maskq.gracePeriod" .drain }}
securityContext:
  {{- include "maskq.podSecurity" . | nindent 2 }}
{{- with .context.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- with .at.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Each process of a pod has a metrics port of its own, one after the other. dict: context, processes */}}
{{- define "maskq.metricsPorts" -}}
{{- if .context.Values.metrics.enabled }}
{{- range $number := until (int .processes) }}
- {name: {{ include "maskq.metricsPortName" $number }}, containerPort: {{ add $.context.Values.metrics.port $number }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "maskq.metricsPortName" -}}
{{ if . }}metrics-{{ . }}{{ else }}metrics{{ end }}
{{- end }}

{{/* Worker processes of one pod of a pool. */}}
{{- define "maskq.processes" -}}
{{ mul (max 1 (int .gpus)) (ternary (int .processesPerGpu) 1 (gt (int .gpus) 0)) }}
{{- end }}

{{/* The most processes that a pod of any pool has. */}}
{{- define "maskq.mostProcesses" -}}
{{- $most := 1 -}}
{{- range $name, $own := .Values.pools -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $most = max $most (int (include "maskq.processes" (include "maskq.pool" (dict "context" $ "pool" $own) | fromJson))) -}}
{{- end -}}
{{- end -}}
{{ $most }}
{{- end }}

{{/* The main loop touched the file within the last ten seconds. */}}
{{- define "maskq.fileProbe" -}}
exec:
  command: [sh, -c, 'test -n "$(find /tmp/maskq-healthy -newermt "-10 seconds" 2>/dev/null)"']
periodSeconds: 5
timeoutSeconds: 3
{{- end }}
