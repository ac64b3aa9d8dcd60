{{- /* How a part becomes a container. */ -}}

{{- /* (root, part): the whole environment. A name that is given twice is a mistake, and Kubernetes would take either. */ -}}
{{- define "keshi.env" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $plain := default dict $part.set -}}
{{- $secret := dict -}}
{{- if $part.kafka -}}
{{- $kafka := $root.Values.kafka -}}
{{- $own := $part.kafkaUser -}}
{{- $from := default $part.secret.name $own.secret -}}
{{- $_ := set $plain "KESHI_KAFKA_BOOTSTRAP" (required "kafka.bootstrap: name your brokers, host:port, several by comma" $kafka.bootstrap) -}}
{{- $_ := set $plain "KESHI_KAFKA_PREFIX" $kafka.prefix -}}
{{- $_ := set $plain "KESHI_KAFKA_SECURITY_PROTOCOL" $kafka.securityProtocol -}}
{{- if hasPrefix "SASL" $kafka.securityProtocol -}}
{{- $_ := set $plain "KESHI_KAFKA_SASL_MECHANISM" $kafka.sasl.mechanism -}}
{{- if $own.name -}}
{{- $_ := set $plain "KESHI_KAFKA_SASL_USERNAME" $own.name -}}
{{- else -}}
{{- $_ := set $secret "KESHI_KAFKA_SASL_USERNAME" (dict "name" $from "key" $kafka.sasl.usernameKey) -}}
{{- end -}}
{{- $_ := set $secret "KESHI_KAFKA_SASL_PASSWORD" (dict "name" $from "key" $kafka.sasl.passwordKey) -}}
{{- end -}}
{{- if $kafka.ca.secret -}}
{{- $_ := set $plain "KESHI_KAFKA_SSL_CAFILE" (printf "/etc/keshi/kafka-ca/%s" $kafka.ca.key) -}}
{{- end -}}
{{- if $kafka.clientCertificate.enabled -}}
{{- $_ := set $plain "KESHI_KAFKA_SSL_CERTFILE" (printf "/etc/keshi/kafka-user/%s" $kafka.clientCertificate.certificateKey) -}}
{{- $_ := set $plain "KESHI_KAFKA_SSL_KEYFILE" (printf "/etc/keshi/kafka-user/%s" $kafka.clientCertificate.privateKeyKey) -}}
{{- end -}}
{{- end -}}
{{- if $part.inventory -}}
{{- $_ := set $plain $part.inventory (printf "/etc/keshi/inventory/%s" $root.Values.inventory.key) -}}
{{- end -}}
{{- range $name, $key := $part.secret.files -}}
{{- $_ := set $plain $name (printf "/etc/keshi/secret/%s" $key) -}}
{{- end -}}
{{- range $name, $key := $part.secret.env -}}
{{- if or (hasKey $plain $name) (hasKey $secret $name) }}{{ fail (printf "%s: %s is set already: take it out of secret.env" $part.component $name) }}{{ end -}}
{{- $_ := set $secret $name (dict "name" $part.secret.name "key" $key) -}}
{{- end -}}
{{- range $name, $value := merge (deepCopy $part.env) $root.Values.env -}}
{{- if or (hasKey $plain $name) (hasKey $secret $name) }}{{ fail (printf "%s: %s is set already: take it out of env" $part.component $name) }}{{ end -}}
{{- $_ := set $plain $name $value -}}
{{- end -}}
{{- range $name, $value := $plain }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $ref := $secret }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {{ toJson $ref }}
{{- end }}
{{- end -}}

{{- define "keshi.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* (root, part) */ -}}
{{- define "keshi.container" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
name: {{ $part.container }}
image: {{ $part.image | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [keshi]
args: {{ toJson $part.args }}
env:
  {{- include "keshi.env" . | trim | nindent 2 }}
{{- if $part.live }}
ports:
  - name: {{ $part.port.name }}
    containerPort: {{ $part.port.number }}
    protocol: TCP
# It connects to everything before it answers: two minutes for that.
startupProbe:
  httpGet: {path: /healthz, port: {{ $part.port.name }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ $part.port.name }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ $part.port.name }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- if $part.linger }}
lifecycle:
  preStop:
    sleep: {seconds: {{ $part.linger }}}
{{- end }}
{{- end }}
resources:
  {{- toYaml $part.resources | nindent 2 }}
securityContext:
  {{- include "keshi.locked" . | nindent 2 }}
volumeMounts:
  - {name: scratch, mountPath: /tmp}
  {{- if $part.secret.files }}
  - {name: secret-{{ $part.container }}, mountPath: /etc/keshi/secret, readOnly: true}
  {{- end }}
  {{- if $part.inventory }}
  - {name: inventory, mountPath: /etc/keshi/inventory, readOnly: true}
  {{- end }}
  {{- if $part.tokens }}
  - {name: tokens, mountPath: /etc/keshi/tokens, readOnly: true}
  {{- end }}
  {{- if and $part.kafka $root.Values.kafka.ca.secret }}
  - {name: kafka-ca, mountPath: /etc/keshi/kafka-ca, readOnly: true}
  {{- end }}
  {{- if and $part.kafka $root.Values.kafka.clientCertificate.enabled }}
  - {name: kafka-user-{{ $part.container }}, mountPath: /etc/keshi/kafka-user, readOnly: true}
  {{- end }}
  {{- if and $part.api $root.Values.api.ca.secret }}
  - {name: api-ca, mountPath: /etc/keshi/api-ca, readOnly: true}
  {{- end }}
  {{- if and $part.ledger (eq $root.Values.ledger.kind "sqlite") }}
  - {name: ledger, mountPath: {{ include "keshi.sqlite.directory" . }}}
  {{- end }}
{{- end -}}
