{{/*
The variables of the container, each once, as a list of entries of Kubernetes' `env`: what the chart derives from its values,
then `env`, then `agent.extraEnvs`. "$" is doubled in texts, for Kubernetes takes "$(NAME)" for a reference and "$$" for "$".
*/}}
{{- define "collector.env" -}}
{{- $agent := .Values.config.agent -}}
{{- $kafka := .Values.config.kafka -}}
{{- $tls := $kafka.tls -}}
{{- $texts := dict -}}
{{- /* The selection of pods needs the API: without it nothing would be known, and nothing captured. */ -}}
{{- $_ := set $texts "COLLECTOR_KUBERNETES" "on" -}}
{{- $_ := set $texts "COLLECTOR_ALL_NAMESPACES" (toString $agent.mirror.allNamespaces) -}}
{{- $_ := set $texts "COLLECTOR_HOST_PROCESSES" (toString $agent.mirror.hostProcesses) -}}
{{- with $agent.mirror.filters }}{{ $_ := set $texts "COLLECTOR_FILTERS" (toJson .) }}{{ end -}}
{{- $_ := set $texts "COLLECTOR_RESPONSE_BODIES" (toString $agent.mirror.responseBodies) -}}
{{- $_ := set $texts "COLLECTOR_REAL_IP_HEADER" $agent.loadBalancerRealIPHeader -}}
{{- with $agent.loadBalancerTrustedCIDRs }}{{ $_ := set $texts "COLLECTOR_TRUSTED_CIDRS" (join "," .) }}{{ end -}}
{{- if include "collector.hasPolicyDocument" . -}}
{{- $_ := set $texts "COLLECTOR_POLICY" "/etc/ebpf-api-collector/policy/policy.yaml" -}}
{{- else -}}
{{- $_ := set $texts "COLLECTOR_POLICY" .Values.config.policy.preset -}}
{{- end -}}
{{- with $kafka.brokers -}}
{{- $_ := set $texts "AKTO_KAFKA_BROKER_MAL" . -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_TOPIC" $kafka.topic -}}
{{- end -}}
{{- if $tls.enabled -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_TLS" "true" -}}
{{- if include "collector.tlsSecret" . -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_TLS_CERT_FILE" "/etc/ebpf-api-collector/kafka-tls/tls.crt" -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_TLS_KEY_FILE" "/etc/ebpf-api-collector/kafka-tls/tls.key" -}}
{{- end -}}
{{- if eq $tls.ca.from "secret" -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_TLS_CA_FILE" (printf "/etc/ebpf-api-collector/kafka-tls/%s" $tls.ca.key) -}}
{{- else if ne $tls.ca.from "system" -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_TLS_CA_FILE" "/etc/ebpf-api-collector/kafka-ca/ca.crt" -}}
{{- end -}}
{{- if $tls.insecureSkipVerify }}{{ $_ := set $texts "COLLECTOR_KAFKA_TLS_SKIP_VERIFY" "true" }}{{ end -}}
{{- end -}}
{{- if ne $kafka.sasl.mechanism "none" -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_SASL" $kafka.sasl.mechanism -}}
{{- $login := "/etc/ebpf-api-collector/kafka-login" -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_USERNAME_FILE" (printf "%s/%s" $login $kafka.sasl.usernameKey) -}}
{{- $_ := set $texts "COLLECTOR_KAFKA_PASSWORD_FILE" (printf "%s/%s" $login $kafka.sasl.passwordKey) -}}
{{- end -}}
{{- if .Values.config.spool.enabled -}}
{{- $_ := set $texts "COLLECTOR_SPOOL_DIR" "/var/spool/collector" -}}
{{- $_ := set $texts "COLLECTOR_SPOOL_BYTES" (toJson .Values.config.spool.bytes) -}}
{{- end -}}
{{- if .Values.agent.metrics.enabled -}}
{{- $_ := set $texts "COLLECTOR_HEALTH_ADDRESS" (printf "0.0.0.0:%s" (toJson .Values.agent.metrics.port)) -}}
{{- end -}}
{{- $names := dict "NODE_NAME" true "POD_NAME" true -}}
{{- range $name, $_ := $texts }}{{ $_ := set $names $name true }}{{ end -}}
{{- range $name, $value := .Values.env -}}
{{- if hasKey $names $name }}{{ fail (printf "env.%s: another value of the chart sets this variable" $name) }}{{ end -}}
{{- $_ := set $names $name true -}}
{{- $_ := set $texts $name (include "collector.text" $value) -}}
{{- end -}}
{{- range .Values.agent.extraEnvs -}}
{{- if hasKey $names .name }}{{ fail (printf "agent.extraEnvs: %s is set twice" .name) }}{{ end -}}
{{- $_ := set $names .name true -}}
{{- end -}}
- name: NODE_NAME   # pods of this node are asked for, and it is in each record
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- range $name, $text := $texts }}
- name: {{ $name }}
  value: {{ replace "$" "$$" $text | quote }}
{{- end }}
{{- with .Values.agent.extraEnvs }}
{{ toYaml . }}
{{- end }}
{{- end -}}
