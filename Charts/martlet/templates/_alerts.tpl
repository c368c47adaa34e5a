{{/* One alert. Call with a dict of top, name, severity, for, expr and summary. */}}
{{- define "martlet.alert" -}}
{{- $base := .top.Values.metrics.rules.runbookBase -}}
{{- $page := printf "%s.md" (.name | kebabcase) -}}
- alert: {{ .name }}
  expr: {{ .expr | quote }}
  for: {{ .for }}
  labels:
    severity: {{ .severity }}
  annotations:
    summary: {{ .summary | quote }}
    {{- if $base }}
    runbook_url: {{ printf "%s/%s/" (trimSuffix "/" $base) (trimSuffix ".md" $page) }}
    {{- else }}
    runbook: docs/runbooks/{{ $page }}
    {{- end }}
{{- end -}}
