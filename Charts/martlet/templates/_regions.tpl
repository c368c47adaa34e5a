{{/* Regions of a cluster, and the stream between them: docs/streams.md. */}}

{{- define "martlet.region.role" -}}
{{- $own := .Values.regions.name -}}
{{- range .Values.regions.list -}}{{- if eq .name $own -}}{{ .role }}{{- end -}}{{- end -}}
{{- end -}}

{{/* What the schema cannot say of the list. */}}
{{- define "martlet.region.check" -}}
{{- $regions := .Values.regions -}}
{{- $homes := list -}}
{{- $names := list -}}
{{- range $regions.list -}}
{{- if has .name $names -}}{{- fail (printf "regions.list: %s is there twice" .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- if eq .role "home" -}}
{{- $homes = append $homes .name -}}
{{- if not .stream -}}{{- fail (printf "regions.list: %s is home and has no stream to be followed at" .name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne (len $homes) 1 -}}{{- fail "regions.list: exactly one region has the role home" -}}{{- end -}}
{{- if not (has $regions.name $names) -}}
{{- fail (printf "regions.name: %s is none of the list: %s" $regions.name (join ", " $names)) -}}
{{- end -}}
{{- $isHome := has $regions.name $homes -}}
{{- if and $isHome (eq .Values.storage.backend "none") -}}
{{- fail "regions: the home region takes the writes and needs storage.backend rocksdb or postgres" -}}
{{- end -}}
{{- if and (not $isHome) (eq .Values.storage.backend "rocksdb") -}}
{{- fail "regions: a replica needs storage.backend none, or postgres for the home region's database" -}}
{{- end -}}
{{- end -}}

{{/* Adds the region's settings. Call with (list . configuration). */}}
{{- define "martlet.region.config" -}}
{{- $top := index . 0 -}}
{{- $config := index . 1 -}}
{{- $regions := $top.Values.regions -}}
{{- include "martlet.region.check" $top -}}
{{- $isHome := eq (include "martlet.region.role" $top) "home" -}}
{{- $_ := set $config "region" $regions.name -}}
{{- $_ := set $config "regions" $regions.list -}}
{{- $stream := dict "mode" $regions.mode "lagBound" $regions.lagBound -}}
{{- $_ := set $stream "certificate" "/etc/martlet/stream/tls.crt" -}}
{{- $_ := set $stream "key" "/etc/martlet/stream/tls.key" -}}
{{- $_ := set $stream "ca" "/etc/martlet/stream/ca.crt" -}}
{{- if $isHome -}}
{{- $_ := set $stream "listen" (include "martlet.address" (list $top.Values.node.bindAddress 11212)) -}}
{{- end -}}
{{- if or $isHome (eq $top.Values.storage.backend "postgres") -}}
{{- $_ := set $stream "retention" $regions.retention -}}
{{- end -}}
{{- if and $isHome (eq $top.Values.storage.backend "rocksdb") -}}
{{- $_ := set $stream "retentionSize" $regions.retentionSize -}}
{{- end -}}
{{- $_ := set $config "stream" $stream -}}
{{- end -}}

{{- define "martlet.region.secret" -}}
{{- if .Values.regions.tls.certManager.enabled -}}
{{- printf "%s-stream" (include "martlet.fullname" .) -}}
{{- else -}}
{{- .Values.regions.tls.existingSecret -}}
{{- end -}}
{{- end -}}
