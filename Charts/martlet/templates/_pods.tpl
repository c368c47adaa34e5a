{{/* What pods of every component have in common. */}}

{{- define "martlet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 11211
runAsGroup: 11211
fsGroup: 11211
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "martlet.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end -}}

{{/* Placement of a component's pods. Call with (list . "component" settings-of-the-component). */}}
{{- define "martlet.placement" -}}
{{- $top := index . 0 -}}
{{- $settings := index . 2 -}}
{{- if $settings.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $settings.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "martlet.selector" (list $top (index $ 1)) | nindent 8 }}
  {{- end }}
{{- end }}
{{- with $settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $settings.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- end -}}

{{/* The probes, on the admin port. Call with the component's settings of them. */}}
{{- define "martlet.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http-metrics}
  periodSeconds: {{ .startup.periodSeconds }}
  failureThreshold: {{ .startup.failureThreshold }}
livenessProbe:
  httpGet: {path: /livez, port: http-metrics}
  periodSeconds: {{ .liveness.periodSeconds }}
  timeoutSeconds: {{ .liveness.timeoutSeconds }}
  failureThreshold: {{ .liveness.failureThreshold }}
readinessProbe:
  httpGet: {path: /readyz, port: http-metrics}
  periodSeconds: {{ .readiness.periodSeconds }}
  timeoutSeconds: {{ .readiness.timeoutSeconds }}
  failureThreshold: {{ .readiness.failureThreshold }}
{{- end -}}

{{/*
Before its signal, a pod drains: it is no longer ready, and serves until nobody asks any more, or long enough. Call with
(list . settings-of-the-drain port-of-the-admin-server file-of-its-token).
*/}}
{{- define "martlet.lifecycle" -}}
{{- $top := index . 0 -}}
{{- $drain := index . 1 -}}
{{- $seconds := add (int $drain.delaySeconds) (int $drain.waitSeconds) -}}
{{- $host := ternary "[::1]" "127.0.0.1" (contains ":" $top.Values.node.bindAddress) -}}
{{- if gt $seconds 0 }}
lifecycle:
  preStop:
    exec:
      command:
        - /usr/bin/martletctl
        - drain
        - --wait
        - --timeout={{ $seconds }}
        - --node=http://{{ $host }}:{{ index . 2 }}
        {{- with index . 3 }}
        - --token-file={{ . }}
        {{- end }}
{{- end }}
{{- end -}}

{{/* drainTimeout of a component: the delay is a part of it, for who sends SIGTERM without the above. */}}
{{- define "martlet.drainTimeout" -}}
{{- add (int .delaySeconds) (int .timeoutSeconds) -}}s
{{- end -}}

{{- define "martlet.gracePeriod" -}}
{{- $drain := . -}}
{{- if gt (int $drain.gracePeriodSeconds) 0 -}}
{{- int $drain.gracePeriodSeconds -}}
{{- else -}}
{{- add (mul (int $drain.delaySeconds) 2) (int $drain.waitSeconds) (int $drain.timeoutSeconds) 10 -}}
{{- end -}}
{{- end -}}
