{{/* Names and labels. They are texts, whatever they look like: a release may be called 123. */}}
{{- define "collector.end" -}}
{{- regexReplaceAll "[-.]+$" . "" -}}
{{- end -}}

{{- define "collector.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | include "collector.end" -}}
{{- end -}}

{{- define "collector.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | include "collector.end" -}}
{{- else if contains (include "collector.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | include "collector.end" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "collector.name" .) | trunc 50 | include "collector.end" -}}
{{- end -}}
{{- end -}}

{{/* Of a selector: the release is among them, so that two releases in one namespace leave each other's pods alone. */}}
{{- define "collector.selectorLabels" -}}
app.kubernetes.io/name: {{ include "collector.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: agent
{{- end -}}

{{- define "collector.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "collector.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "collector.serviceAccountName" -}}
{{- $account := .Values.agent.serviceAccount -}}
{{- if $account.name -}}
{{ $account.name }}
{{- else if $account.create -}}
{{ include "collector.fullname" . }}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "collector.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{ $image.name }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* The Secret of our certificate for Kafka: its name, or nothing. */}}
{{- define "collector.tlsSecret" -}}
{{- $tls := .Values.config.kafka.tls -}}
{{- if $tls.enabled -}}
{{- if $tls.existingSecret -}}{{ $tls.existingSecret }}
{{- else if or $tls.certManager.enabled $tls.inline.certificate -}}{{ include "collector.fullname" . }}-kafka-tls
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
A value of `env` as the text of a variable. Numbers go by JSON, for Helm reads 1073741824 as 1.073741824e+09; lists of texts
become a list with commas, other lists and maps JSON.
*/}}
{{- define "collector.text" -}}
{{- if kindIs "string" . -}}{{ . }}
{{- else if and (kindIs "slice" .) (not (empty .)) (kindIs "string" (first .)) -}}{{ join "," . }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* What goes together and what does not, where the schema cannot say it. */}}
{{- define "collector.check" -}}
{{- $kafka := .Values.config.kafka -}}
{{- $tls := $kafka.tls -}}
{{- if and (not $kafka.brokers) (not (hasKey .Values.env "COLLECTOR_OUTPUT")) -}}
{{- fail "config.kafka.brokers: where do the records go? host:port of the brokers, or env.COLLECTOR_OUTPUT" -}}
{{- end -}}
{{- if and (not $tls.enabled) (or $tls.existingSecret $tls.certManager.enabled $tls.inline.certificate $tls.inline.key) -}}
{{- fail "config.kafka.tls: a certificate is there, but `enabled` is false" -}}
{{- end -}}
{{- $sources := 0 -}}
{{- range list $tls.existingSecret $tls.certManager.enabled $tls.inline.certificate -}}
{{- if . -}}{{- $sources = add1 $sources -}}{{- end -}}
{{- end -}}
{{- if gt (int $sources) 1 -}}
{{- fail "config.kafka.tls: of certManager, existingSecret and inline only one can be used" -}}
{{- end -}}
{{- if and $tls.enabled $tls.certManager.enabled (not $tls.certManager.issuerRef.name) -}}
{{- fail "config.kafka.tls.certManager.issuerRef.name: the name of the issuer is missing" -}}
{{- end -}}
{{- if ne (empty $tls.inline.certificate) (empty $tls.inline.key) -}}
{{- fail "config.kafka.tls.inline: certificate and key go together" -}}
{{- end -}}
{{- if $tls.enabled -}}
{{- if and (eq $tls.ca.from "secret") (not (include "collector.tlsSecret" .)) -}}
{{- fail "config.kafka.tls.ca.from: `secret` is the Secret of our certificate, and there is none" -}}
{{- end -}}
{{- if and (eq $tls.ca.from "secret") $tls.inline.certificate -}}
{{- fail "config.kafka.tls.ca.from: with an inline certificate it is `inline`, `other` or `system`" -}}
{{- end -}}
{{- if and (eq $tls.ca.from "other") (not $tls.ca.secret) -}}
{{- fail "config.kafka.tls.ca.secret: the name of the Secret is missing" -}}
{{- end -}}
{{- if and (eq $tls.ca.from "inline") (not $tls.ca.pem) -}}
{{- fail "config.kafka.tls.ca.pem: the certificates are missing" -}}
{{- end -}}
{{- end -}}
{{- if and (ne $kafka.sasl.mechanism "none") (not $kafka.sasl.existingSecret) -}}
{{- fail "config.kafka.sasl.existingSecret: the Secret with user name and password is missing" -}}
{{- end -}}
{{- end -}}

{{- define "collector.hasPolicyDocument" -}}
{{- if .Values.config.policy.document }}yes{{ end -}}
{{- end -}}

{{/* Without `privileged`: the smallest set with which everything works (docs/security.md), and what the values add. */}}
{{- define "collector.capabilities" -}}
{{- $capture := list "BPF" "PERFMON" "SYS_PTRACE" "CHECKPOINT_RESTORE" "DAC_OVERRIDE" -}}
{{- $children := list "CHOWN" "SETUID" "SETGID" "SETPCAP" "KILL" -}}
{{- concat $capture $children (default list .Values.agent.extraCapabilities) | uniq | join ", " -}}
{{- end -}}

{{/* Cluster-wide, so the namespace is a part of it: the same release in two namespaces needs two. */}}
{{- define "collector.clusterRole" -}}
{{ .Release.Namespace }}-{{ include "collector.fullname" . }}
{{- end -}}

{{/* From Kubernetes 1.30 on the profile of AppArmor is a field; before, an annotation. */}}
{{- define "collector.hasAppArmorField" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}yes{{ end -}}
{{- end -}}
