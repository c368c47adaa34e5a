{{/* What a cache node is told. */}}

{{/* A size of Martlet's settings in bytes. */}}
{{- define "martlet.bytes" -}}
{{- $units := dict "" 1 "k" 1024 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "TiB" 1099511627776 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[A-Za-z]*$" .) | int64) -}}
{{- end -}}

{{/* MiB that a store takes beside the cache: see docs/kubernetes.md. */}}
{{- define "martlet.node.storeMiB" -}}
{{- if eq .Values.storage.backend "rocksdb" -}}
{{- add (div (include "martlet.bytes" .Values.storage.blockCache | int64) 1048576) 496 -}}
{{- else if eq .Values.storage.backend "postgres" -}}
{{- add (mul (int64 .Values.node.threads) 64) 64 -}}
{{- else if eq .Values.storage.backend "region" -}}
{{- add (mul (int64 .Values.node.threads) 64) 64 -}}
{{- else -}}
0
{{- end -}}
{{- end -}}

{{/* How keys are spread over nodes that agree on whose a key is; empty where none do. */}}
{{- define "martlet.owners" -}}
{{- or .Values.storage.postgres.owners .Values.storage.region.owners -}}
{{- end -}}

{{/* MiB that the way through Kafka takes at most: what waits for brokers, and what they sent. */}}
{{- define "martlet.node.kafkaMiB" -}}
{{- if include "martlet.kafka.used" . -}}96{{- else -}}0{{- end -}}
{{- end -}}

{{/* A variable whose value is a Secret's. Call with (list variable secret key). */}}
{{- define "martlet.secretVariable" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{ end -}}

{{/* The node's settings that are secrets, as variables. */}}
{{- define "martlet.node.secrets" -}}
{{- if eq .Values.storage.backend "postgres" -}}
{{- $database := .Values.storage.postgres -}}
{{- include "martlet.secretVariable" (list "MARTLET_STORAGE_URL" $database.existingSecret $database.existingSecretKey) -}}
{{- end -}}
{{- if .Values.regions.name -}}
{{- with .Values.storage.region.standby -}}
{{- if .existingSecret -}}
{{- include "martlet.secretVariable" (list "MARTLET_STORAGE_STANDBY_URL" .existingSecret .existingSecretKey) -}}
{{- end -}}
{{- end -}}
{{- $kafka := .Values.regions.kafka -}}
{{- $usesKafka := include "martlet.kafka.used" . -}}
{{- if and $usesKafka (hasPrefix "sasl" $kafka.security) -}}
{{- include "martlet.secretVariable" (list "MARTLET_STREAM_KAFKA_PASSWORD" $kafka.login.existingSecret $kafka.login.existingSecretKey) -}}
{{- end -}}
{{- if and $usesKafka $kafka.registry.url $kafka.registry.username (eq (include "martlet.region.role" .) "home") -}}
{{- include "martlet.secretVariable" (list "MARTLET_STREAM_KAFKA_REGISTRY_PASSWORD" $kafka.registry.existingSecret $kafka.registry.existingSecretKey) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* MiB requested: 1.2 of the cache, 100, 4 KiB for each connection, the store, and the way through Kafka. */}}
{{- define "martlet.node.requestMiB" -}}
{{- $cache := include "martlet.bytes" .Values.node.memory | int64 -}}
{{- $twelfths := div (add (mul $cache 12) 10485759) 10485760 -}}
{{- $connections := div (int64 .Values.node.connections.limit) 256 -}}
{{- add $twelfths 100 $connections (include "martlet.node.storeMiB" . | int64) (include "martlet.node.kafkaMiB" . | int64) -}}
{{- end -}}

{{/* MiB at most: 1.5 of the cache, but at least 128 more than requested. */}}
{{- define "martlet.node.limitMiB" -}}
{{- $cache := include "martlet.bytes" .Values.node.memory | int64 -}}
{{- max (div (mul $cache 3) 2097152) (add (include "martlet.node.requestMiB" . | int64) 128) -}}
{{- end -}}

{{- define "martlet.node.resources" -}}
{{- if .Values.node.resources -}}
{{- toYaml .Values.node.resources -}}
{{- else -}}
requests:
  cpu: {{ .Values.node.threads | quote }}
  memory: {{ include "martlet.node.requestMiB" . }}Mi
limits:
  memory: {{ include "martlet.node.limitMiB" . }}Mi
{{- end -}}
{{- end -}}

{{/* An address with a port, in brackets where it is of IPv6. Call with (list address port). */}}
{{- define "martlet.address" -}}
{{- $address := index . 0 -}}
{{- if contains ":" $address -}}[{{ $address }}]:{{ index . 1 }}{{- else -}}{{ $address }}:{{ index . 1 }}{{- end -}}
{{- end -}}

{{/* The node's file: docs/configuration.md. */}}
{{- define "martlet.node.config" -}}
{{- $node := .Values.node -}}
{{- $config := deepCopy $node.config -}}
{{- $own := list "listen" "port" "udp" "unix" "admin" "adminTokenFile" "auth" "tls" "storage" "pools" "daemon" "pidfile" }}
{{- $own = concat $own (list "user" "cluster" "members" "memory" "threads" "connections" "items" "log") -}}
{{- $own = concat $own (list "drainDelay" "drainTimeout" "region" "regions" "stream" "tracing" "ownership") -}}
{{- range $key := keys $config -}}
{{- if has (first (splitList "." $key)) $own -}}
{{- fail (printf "node.config.%s: the chart has a value of its own for this" $key) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "cluster" .Values.cluster -}}
{{- $_ := set $config "listen" (list (include "martlet.address" (list $node.bindAddress 11211))) -}}
{{- $_ := set $config "admin" (include "martlet.address" (list $node.bindAddress 9150)) -}}
{{- $_ := set $config "drainDelay" (printf "%ds" (int64 $node.drain.delaySeconds)) -}}
{{- $_ := set $config "drainTimeout" (include "martlet.drainTimeout" $node.drain) -}}
{{- $_ := set $config "memory" $node.memory -}}
{{- $_ := set $config "threads" (int64 $node.threads) -}}
{{- $connections := dict "limit" (int64 $node.connections.limit) "idleTimeout" $node.connections.idleTimeout -}}
{{- $_ := set $config "connections" $connections -}}
{{- $_ := set $config "items" (dict "maxSize" $node.items.maxSize "evict" $node.items.evict) -}}
{{- $_ := set $config "log" (dict "format" $node.log.format "level" $node.log.level) -}}
{{- if $node.advertiseMembers -}}
{{- $members := list -}}
{{- $name := include "martlet.fullname" . -}}
{{- range $ordinal := until (int $node.replicas) -}}
{{- $host := printf "%s-%d.%s-headless.%s.svc.%s" $name $ordinal $name $.Release.Namespace $.Values.clusterDomain -}}
{{- $members = append $members (printf "%s:11211" $host) -}}
{{- end -}}
{{- $_ := set $config "members" $members -}}
{{- end -}}
{{- with $node.pools -}}{{- $_ := set $config "pools" . -}}{{- end -}}
{{- $storage := dict "backend" .Values.storage.backend -}}
{{- if ne .Values.storage.backend "none" -}}
{{- $_ := set $storage "timeout" .Values.storage.timeout -}}
{{- $_ := set $storage "slowLog" .Values.storage.slowLog -}}
{{- end -}}
{{- if eq .Values.storage.backend "rocksdb" -}}
{{- $_ := set $storage "path" "/data/store" -}}
{{- $_ := set $storage "durability" .Values.storage.durability -}}
{{- $_ := set $storage "blockCache" .Values.storage.blockCache -}}
{{- $_ := set $storage "readers" (int64 .Values.storage.readers) -}}
{{- else if eq .Values.storage.backend "postgres" -}}
{{- $_ := set $storage "connections" (int64 .Values.storage.postgres.connections) -}}
{{- with .Values.storage.postgres.owners -}}{{- $_ := set $config "ownership" (dict "hash" .) -}}{{- end -}}
{{- if include "martlet.region.moves" . -}}
{{- with .Values.storage.region.tlsName -}}{{- $_ := set $storage "tlsName" . -}}{{- end -}}
{{- end -}}
{{- else if eq .Values.storage.backend "region" -}}
{{- $_ := set $storage "tls" .Values.storage.region.tls -}}
{{- with .Values.storage.region.tlsName -}}{{- $_ := set $storage "tlsName" . -}}{{- end -}}
{{- with .Values.storage.region.owners -}}
{{- $_ := set $config "ownership" (dict "hash" . "authority" $.Values.storage.region.authority) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "storage" $storage -}}
{{- if .Values.tls.enabled -}}
{{- $tls := dict "enabled" true "certificate" "/etc/martlet/tls/tls.crt" "key" "/etc/martlet/tls/tls.key" -}}
{{- $_ := set $tls "minVersion" .Values.tls.minVersion -}}
{{- if ne .Values.tls.verify "none" -}}
{{- $_ := set $tls "verify" .Values.tls.verify -}}
{{- $_ := set $tls "ca" "/etc/martlet/tls/ca.crt" -}}
{{- with .Values.tls.crl -}}
{{- if .existingConfigMap -}}{{- $_ := set $tls "crl" (printf "/etc/martlet/tls-crl/%s" .key) -}}{{- end -}}
{{- end -}}
{{- else if and .Values.tls.crl.existingConfigMap (not .Values.router.enabled) -}}
{{- fail "tls.crl: tls.verify is none, and nobody's certificate is looked at" -}}
{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- end -}}
{{- if .Values.auth.existingSecret -}}
{{- $_ := set $config "auth" (dict "file" "/etc/martlet/users/users") -}}
{{- end -}}
{{- if .Values.admin.tokenSecret -}}
{{- $_ := set $config "adminTokenFile" "/etc/martlet/token/token" -}}
{{- end -}}
{{- if .Values.regions.name -}}
{{- include "martlet.region.config" (list . $config) -}}
{{- end -}}
{{- if .Values.tracing.endpoint -}}
{{- /* Behind routers, which choose the traces, nodes begin none. */ -}}
{{- $tracing := merge (dict "endpoint" .Values.tracing.endpoint) (omit .Values.tracing.config "propagate") -}}
{{- if and .Values.router.enabled (not (hasKey $tracing "sampler")) -}}
{{- $_ := set $tracing "sampler" "parentbased_always_off" -}}
{{- end -}}
{{- $_ := set $config "tracing" $tracing -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* ConfigMaps with revocation lists that nodes read, by the names of their volumes. */}}
{{- define "martlet.node.lists" -}}
{{- if and .Values.tls.enabled (ne .Values.tls.verify "none") -}}
{{- with .Values.tls.crl.existingConfigMap }}
tls-crl: {{ . }}
{{- end }}
{{- end }}
{{- if .Values.regions.name }}
{{- with .Values.regions.tls.crl.existingConfigMap }}
stream-crl: {{ . }}
{{- end }}
{{- if include "martlet.kafka.used" . }}
{{- with .Values.regions.kafka.tls.crl.existingConfigMap }}
kafka-crl: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
