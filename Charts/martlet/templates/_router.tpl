{{/* What a router is told. */}}

{{/* MiB requested: 128, and 8 KiB for each client. */}}
{{- define "martlet.router.requestMiB" -}}
{{- add 128 (div (int64 .Values.router.connections.limit) 128) -}}
{{- end -}}

{{- define "martlet.router.resources" -}}
{{- if .Values.router.resources -}}
{{- toYaml .Values.router.resources -}}
{{- else -}}
requests:
  cpu: {{ .Values.router.threads | quote }}
  memory: {{ include "martlet.router.requestMiB" . }}Mi
limits:
  memory: {{ add (include "martlet.router.requestMiB" . | int64) 512 }}Mi
{{- end -}}
{{- end -}}

{{/* The settings that a router applies while it runs: docs/routing.md. */}}
{{- define "martlet.router.servers" -}}
{{- $servers := list -}}
{{- $name := include "martlet.fullname" . -}}
{{- range $ordinal := until (int .Values.node.replicas) -}}
{{- $host := printf "%s-%d.%s-headless.%s.svc.%s" $name $ordinal $name $.Release.Namespace $.Values.clusterDomain -}}
{{- $servers = append $servers (printf "%s:11211" $host) -}}
{{- end -}}
{{- $watched := eq .Values.router.discovery "kubernetes" -}}
{{- $source := printf "k8s:///%s/%s-ready:memcached" .Release.Namespace $name -}}
{{- $config := dict -}}
{{- $owners := include "martlet.owners" . -}}
{{- if $owners -}}
{{- /* The nodes say who owns a key; the hash only has to guess as they do. */ -}}
{{- $pool := dict "hash" $owners "followOwners" true -}}
{{- if $watched -}}{{- $_ := set $pool "members" $source -}}{{- else -}}{{- $_ := set $pool "servers" $servers -}}{{- end -}}
{{- $_ := set $config "pools" (dict "nodes" $pool) -}}
{{- $_ := set $config "route" "nodes" -}}
{{- else -}}
{{- $_ := set $config "servers" (ternary (list $source) $servers $watched) -}}
{{- $_ := set $config "hash" .Values.router.hash -}}
{{- with .Values.router.hashTag -}}{{- $_ := set $config "hashTag" . -}}{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The account of routers that ask Kubernetes; the others' is everybody's. */}}
{{- define "martlet.router.serviceAccountName" -}}
{{- if eq .Values.router.discovery "kubernetes" -}}
{{- printf "%s-router" (include "martlet.fullname" .) -}}
{{- else -}}
{{- include "martlet.serviceAccountName" . -}}
{{- end -}}
{{- end -}}

{{/* The settings that wait for a new process. */}}
{{- define "martlet.router.fixed" -}}
{{- $router := .Values.router -}}
{{- $config := deepCopy $router.config -}}
{{- $own := list "listen" "port" "admin" "threads" "servers" "hash" "hashTag" "connections" "upstream" "tls" "log" }}
{{- $own = concat $own (list "pidfile" "user" "drainDelay" "drainTimeout" "tracing" "pools" "route") -}}
{{- range $key := keys $config -}}
{{- if has (first (splitList "." $key)) $own -}}
{{- fail (printf "router.config.%s: the chart has a value of its own for this" $key) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "listen" (list (include "martlet.address" (list .Values.node.bindAddress 11211))) -}}
{{- $_ := set $config "admin" (include "martlet.address" (list .Values.node.bindAddress 9151)) -}}
{{- $_ := set $config "drainDelay" (printf "%ds" (int64 $router.drain.delaySeconds)) -}}
{{- $_ := set $config "drainTimeout" (include "martlet.drainTimeout" $router.drain) -}}
{{- $_ := set $config "threads" (int64 $router.threads) -}}
{{- $connections := dict "limit" (int64 $router.connections.limit) "idleTimeout" $router.connections.idleTimeout -}}
{{- $_ := set $config "connections" $connections -}}
{{- $_ := set $config "log" (dict "format" .Values.node.log.format "level" .Values.node.log.level) -}}
{{- $upstream := dict "timeout" $router.upstream.timeout "connectTimeout" $router.upstream.connectTimeout -}}
{{- if .Values.tls.enabled -}}
{{- $place := "/etc/martlet/tls" -}}
{{- $client := dict "enabled" true "certificate" (printf "%s/tls.crt" $place) "key" (printf "%s/tls.key" $place) -}}
{{- $_ := set $client "ca" (printf "%s/ca.crt" $place) -}}
{{- $crl := "" -}}
{{- with .Values.tls.crl -}}
{{- if .existingConfigMap -}}{{- $crl = printf "/etc/martlet/tls-crl/%s" .key -}}{{- end -}}
{{- end -}}
{{- if $crl -}}{{- $_ := set $client "crl" $crl -}}{{- end -}}
{{- $_ := set $upstream "tls" $client -}}
{{- $tls := dict "enabled" true "certificate" (printf "%s/tls.crt" $place) "key" (printf "%s/tls.key" $place) -}}
{{- $_ := set $tls "minVersion" .Values.tls.minVersion -}}
{{- if ne .Values.tls.verify "none" -}}
{{- $_ := set $tls "verify" .Values.tls.verify -}}
{{- $_ := set $tls "ca" (printf "%s/ca.crt" $place) -}}
{{- if $crl -}}{{- $_ := set $tls "crl" $crl -}}{{- end -}}
{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- end -}}
{{- $_ := set $config "upstream" $upstream -}}
{{- with .Values.tracing.endpoint -}}
{{- $_ := set $config "tracing" (merge (dict "endpoint" .) $.Values.tracing.config) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
