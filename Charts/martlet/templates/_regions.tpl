{{/* Regions of a cluster, and the stream between them: docs/streams.md. */}}

{{- define "martlet.region.role" -}}
{{- $own := .Values.regions.name -}}
{{- range .Values.regions.list -}}{{- if eq .name $own -}}{{ .role }}{{- end -}}{{- end -}}
{{- end -}}

{{/* Whether others follow this region's nodes: now, or once it is home. */}}
{{- define "martlet.region.followed" -}}
{{- $own := .Values.regions.name -}}
{{- range .Values.regions.list -}}{{- if and (eq .name $own) .stream -}}true{{- end -}}{{- end -}}
{{- end -}}

{{/* Whether another region may become home: docs/streams.md, promotion. */}}
{{- define "martlet.region.moves" -}}
{{- $followed := 0 -}}
{{- range .Values.regions.list -}}{{- if .stream -}}{{- $followed = add1 $followed -}}{{- end -}}{{- end -}}
{{- if gt (int $followed) 1 -}}true{{- end -}}
{{- end -}}

{{/* Whether the region's nodes speak with those of other regions, as a client of theirs. */}}
{{- define "martlet.region.asks" -}}
{{- if .Values.regions.name -}}
{{- $isReplica := eq (include "martlet.region.role" .) "replica" -}}
{{- if or (and $isReplica (ne .Values.storage.backend "postgres")) (include "martlet.region.moves" .) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the nodes read a Debezium connector's topic. */}}
{{- define "martlet.kafka.reads" -}}
{{- if and .Values.regions.name .Values.regions.kafka.debezium (eq (include "martlet.region.role" .) "home") -}}true{{- end -}}
{{- end -}}

{{/* Whether the nodes speak with brokers. */}}
{{- define "martlet.kafka.used" -}}
{{- $kafka := .Values.regions.kafka -}}
{{- if and .Values.regions.name $kafka.brokers (or $kafka.carriesStream (include "martlet.kafka.reads" .)) -}}true{{- end -}}
{{- end -}}

{{/* What the schema cannot say of Debezium's topic. */}}
{{- define "martlet.kafka.check" -}}
{{- $kafka := .Values.regions.kafka -}}
{{- if include "martlet.kafka.reads" . -}}
{{- if not $kafka.brokers -}}{{- fail "regions.kafka.debezium: its topic is at regions.kafka.brokers, and there are none" -}}{{- end -}}
{{- if ne .Values.storage.backend "postgres" -}}
{{- fail "regions.kafka.debezium: storage.backend is not postgres, whose rows Debezium tells of" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.regions.name $kafka.stateTopic (not $kafka.carriesStream) -}}
{{- fail "regions.kafka.stateTopic: regions.kafka.carriesStream is false, and nobody writes it" -}}
{{- end -}}
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
{{- fail "regions: a replica needs storage.backend none, region, or postgres for the home region's database" -}}
{{- end -}}
{{- if eq .Values.storage.backend "region" -}}
{{- if $isHome -}}{{- fail "regions: the home region cannot have itself for a store: storage.backend region is a replica's" -}}{{- end -}}
{{- range $regions.list -}}
{{- if and (eq .role "home") (not .serve) -}}
{{- fail (printf "regions.list: %s is home and does not say where it serves, which storage.backend region needs" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "martlet.region.checkMoves" . -}}
{{- include "martlet.kafka.check" . -}}
{{- end -}}

{{/* What the schema cannot say of regions that may become home. */}}
{{- define "martlet.region.checkMoves" -}}
{{- $regions := .Values.regions -}}
{{- if include "martlet.region.moves" . -}}
{{- if or $regions.kafka.stateTopic $regions.kafka.debezium -}}
{{- fail "regions.list: with regions.kafka.stateTopic or regions.kafka.debezium only the home region has a stream, and stays home" -}}
{{- end -}}
{{- if and (eq (include "martlet.region.role" .) "home") (ne .Values.storage.backend "postgres") -}}
{{- fail "regions.list: another region has a stream, and may take home's database over: that is a PostgreSQL (storage.backend)" -}}
{{- end -}}
{{- range $regions.list -}}
{{- if and .stream (not .serve) -}}
{{- fail (printf "regions.list: %s has a stream, and may be home; it does not say where it serves then" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.storage.region.standby.existingSecret -}}
{{- if not (include "martlet.region.followed" .) -}}
{{- fail (printf "storage.region.standby: %s needs a stream in regions.list, where others follow it once it is home" $regions.name) -}}
{{- end -}}
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
{{- with $regions.tls.crl -}}
{{- if .existingConfigMap -}}{{- $_ := set $stream "crl" (printf "/etc/martlet/stream-crl/%s" .key) -}}{{- end -}}
{{- end -}}
{{- $isFollowed := include "martlet.region.followed" $top -}}
{{- if $isFollowed -}}
{{- $_ := set $stream "listen" (include "martlet.address" (list $top.Values.node.bindAddress 11212)) -}}
{{- end -}}
{{- if or $isFollowed (eq $top.Values.storage.backend "postgres") -}}
{{- $_ := set $stream "retention" $regions.retention -}}
{{- end -}}
{{- if and $isHome (eq $top.Values.storage.backend "rocksdb") -}}
{{- $_ := set $stream "retentionSize" $regions.retentionSize -}}
{{- end -}}
{{- if include "martlet.kafka.used" $top -}}
{{- if $regions.kafka.carriesStream -}}{{- $_ := set $stream "transport" "kafka" -}}{{- end -}}
{{- $_ := set $stream "kafka" (include "martlet.region.kafka" $top | fromYaml) -}}
{{- end -}}
{{- $_ := set $config "stream" $stream -}}
{{- end -}}

{{/* What carries the stream, or is read of Debezium's. Passwords are variables: martlet.node.secrets. */}}
{{- define "martlet.region.kafka" -}}
{{- $kafka := .Values.regions.kafka -}}
{{- $place := "/etc/martlet/kafka" -}}
{{- $settings := dict "brokers" $kafka.brokers "security" $kafka.security -}}
{{- if $kafka.carriesStream -}}
{{- $_ := set $settings "clockSkew" $kafka.clockSkew -}}
{{- with $kafka.topic -}}{{- $_ := set $settings "topic" . -}}{{- end -}}
{{- with $kafka.stateTopic -}}{{- $_ := set $settings "stateTopic" . -}}{{- end -}}
{{- end -}}
{{- if include "martlet.kafka.reads" . -}}{{- $_ := set $settings "debezium" $kafka.debezium -}}{{- end -}}
{{- if and $kafka.tls.existingSecret (hasSuffix "ssl" $kafka.security) -}}
{{- $_ := set $settings "ca" (printf "%s/ca.crt" $place) -}}
{{- if $kafka.tls.clientCertificate -}}
{{- $_ := set $settings "certificate" (printf "%s/tls.crt" $place) -}}
{{- $_ := set $settings "key" (printf "%s/tls.key" $place) -}}
{{- end -}}
{{- end -}}
{{- if $kafka.tls.crl.existingConfigMap -}}
{{- if not (hasSuffix "ssl" $kafka.security) -}}
{{- fail (printf "regions.kafka.tls.crl: regions.kafka.security is %s, and brokers show no certificate" $kafka.security) -}}
{{- end -}}
{{- $_ := set $settings "crl" (printf "/etc/martlet/kafka-crl/%s" $kafka.tls.crl.key) -}}
{{- end -}}
{{- if hasPrefix "sasl" $kafka.security -}}
{{- $_ := set $settings "mechanism" $kafka.login.mechanism -}}
{{- $_ := set $settings "username" $kafka.login.username -}}
{{- end -}}
{{- if and $kafka.registry.url (eq (include "martlet.region.role" .) "home") -}}
{{- $_ := set $settings "registry" $kafka.registry.url -}}
{{- with $kafka.registry.username -}}{{- $_ := set $settings "registryUsername" . -}}{{- end -}}
{{- if $kafka.registry.sameAuthority -}}{{- $_ := set $settings "registryCa" (printf "%s/ca.crt" $place) -}}{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "martlet.region.secret" -}}
{{- if .Values.regions.tls.certManager.enabled -}}
{{- printf "%s-stream" (include "martlet.fullname" .) -}}
{{- else -}}
{{- .Values.regions.tls.existingSecret -}}
{{- end -}}
{{- end -}}
