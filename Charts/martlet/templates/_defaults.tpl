{{/*
Gives every setting that is missing its default: `helm upgrade --reuse-values` brings the values of an earlier release, which
knew fewer. files/defaults.yaml is values.yaml, which a template cannot read. Each template begins with it.
*/}}
{{- define "martlet.defaults" -}}
{{- include "martlet.fill" (list .Values (.Files.Get "files/defaults.yaml" | fromYaml)) -}}
{{- end -}}

{{- define "martlet.fill" -}}
{{- $values := index . 0 -}}
{{- range $key, $default := index . 1 -}}
{{- if not (hasKey $values $key) -}}
{{- $_ := set $values $key $default -}}
{{- else if and (kindIs "map" $default) (kindIs "map" (get $values $key)) -}}
{{- include "martlet.fill" (list (get $values $key) $default) -}}
{{- end -}}
{{- end -}}
{{- end -}}
