{{- /*
A part is what one container needs to know, as plain data: which image, which call, what the chart sets, what the user
gave. All containers are made from parts in one way (_container.tpl), and so are network policies.

  component, container   names
  image, args            what runs
  set                    environment that the chart decides
  env                    environment of the user
  secret                 the workload's own Secret: name, env (variable: key), files (variable: key), beside (keys)
  kafka, kafkaUser       whether it talks to Kafka, and as whom
  ledger                 whether it needs it
  inventory              the variable that names the inventory, where it reads it
  port, live             name and number of the port that answers probes; `live` false: it runs once
  linger                 seconds between being told to end and being told so by us, for a Service to notice
  grace                  seconds until it is killed
*/ -}}

{{- define "keshi.sqlite.directory" -}}/var/lib/keshi{{- end -}}

{{- /* Where the ledger is; on PostgreSQL only the Secret knows. */ -}}
{{- define "keshi.ledger.set" -}}
{{- if eq .Values.ledger.kind "sqlite" }}
KESHI_LEDGER_URL: sqlite:///{{ include "keshi.sqlite.directory" . }}/ledger.db
{{- end }}
{{- end -}}

{{- /* (root, workload's values, component): its own Secret. */ -}}
{{- define "keshi.secret" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- $env := $own.secret.env -}}
{{- if eq $root.Values.ledger.kind "sqlite" }}{{ $env = omit $env "KESHI_LEDGER_URL" }}{{ end -}}
name: {{ default (include "keshi.name" (list $root (index . 2))) $own.secret.name }}
env: {{ toJson $env }}
files: {{ toJson $own.secret.files }}
beside: {{ toJson $own.secret.beside }}
{{- end -}}

{{- define "keshi.part.orchestrator" -}}
{{- $own := .Values.orchestrator -}}
component: orchestrator
container: orchestrator
image: {{ include "keshi.image" (list . .Values.image.core "image.core") }}
args: [orchestrator, run]
set:
  KESHI_HEALTH_HOST: 0.0.0.0
  KESHI_ORCHESTRATOR_HEALTH_PORT: {{ .Values.healthPort | quote }}
  KESHI_ORCHESTRATOR_GROUP: {{ $own.group | quote }}
  KESHI_COMMANDS_RETENTION_DAYS: {{ .Values.topics.commandsRetentionDays | quote }}
  {{- include "keshi.ledger.set" . | indent 2 }}
env: {{ toJson $own.env }}
secret:
  {{- include "keshi.secret" (list . $own "orchestrator") | nindent 2 }}
kafka: true
kafkaUser: {{ toJson $own.kafkaUser }}
ledger: true
inventory: KESHI_INVENTORY
port: {name: health, number: {{ .Values.healthPort }}}
live: true
linger: 0
grace: 60
resources: {{ toJson $own.resources }}
egress: {{ toJson $own.egress }}
{{- end -}}

{{- define "keshi.part.api" -}}
{{- $own := .Values.api -}}
component: api
container: api
image: {{ include "keshi.image" (list . .Values.image.core "image.core") }}
args: [api, run]
set:
  KESHI_API_HOST: 0.0.0.0
  KESHI_API_PORT: {{ $own.port | quote }}
  KESHI_COMMANDS_RETENTION_DAYS: {{ .Values.topics.commandsRetentionDays | quote }}
  {{- if eq (include "keshi.tokens" .) "given" }}
  KESHI_TOKENS_FILE: /etc/keshi/tokens/{{ $own.tokens.key }}
  {{- end }}
  {{- include "keshi.ledger.set" . | indent 2 }}
env: {{ toJson $own.env }}
secret:
  {{- $secret := fromYaml (include "keshi.secret" (list . $own "api")) }}
  {{- if ne (include "keshi.tokens" .) "given" }}{{ $_ := set $secret.files "KESHI_TOKENS_FILE" $own.tokens.key }}{{ end }}
  {{- toYaml $secret | nindent 2 }}
kafka: true
kafkaUser: {{ toJson $own.kafkaUser }}
ledger: true
tokens: {{ eq (include "keshi.tokens" .) "given" }}
port: {name: http, number: {{ $own.port }}}
live: true
linger: 5
grace: 30
resources: {{ toJson $own.resources }}
egress: {{ toJson $own.egress }}
{{- end -}}

{{- /* "given" where hashed tokens come from a ConfigMap; else they stand in the API's Secret. */ -}}
{{- define "keshi.tokens" -}}
{{- if or .Values.api.tokens.content .Values.api.tokens.configMap }}given{{ end -}}
{{- end -}}

{{- define "keshi.part.topics" -}}
{{- $own := .Values.topics -}}
component: topics
container: topics
image: {{ include "keshi.image" (list . .Values.image.core "image.core") }}
args:
  - topics
  - apply
  - --partitions={{ $own.partitions }}
  - --commands-partitions={{ $own.commandsPartitions }}
  - --replication={{ $own.replication }}
set:
  KESHI_COMMANDS_RETENTION_DAYS: {{ $own.commandsRetentionDays | quote }}
env: {}
secret:
  {{- include "keshi.secret" (list . $own "topics") | nindent 2 }}
kafka: true
kafkaUser: {{ toJson $own.kafkaUser }}
inventory: KESHI_INVENTORY
live: false
grace: 30
resources: {{ toJson $own.resources }}
egress: {{ toJson $own.egress }}
{{- end -}}

{{- define "keshi.part.migrate" -}}
{{- $own := .Values.migrate -}}
component: migrate
container: migrate
image: {{ include "keshi.image" (list . .Values.image.core "image.core") }}
args: [ledger, {{ include "keshi.migrate.verb" . }}]
set:
  {{- include "keshi.ledger.set" . | indent 2 | default "  {}" }}
env: {}
secret:
  {{- include "keshi.secret" (list . $own "migrate") | nindent 2 }}
kafka: false
ledger: true
live: false
grace: 30
resources: {{ toJson $own.resources }}
egress: {{ toJson $own.egress }}
{{- end -}}

{{- /*
"migrate" or "check". The schema changes only while no orchestrator and no API runs; an upgrade that finds them running
looks whether the schema fits, and stops before anything is replaced. In a SQLite pod the step before the containers
can only run when the pod before it has ended.
*/ -}}
{{- define "keshi.migrate.verb" -}}
{{- $running := 0 -}}
{{- range $kind, $component := dict "StatefulSet" "orchestrator" "Deployment" "api" -}}
{{- $found := lookup "apps/v1" $kind $.Release.Namespace (include "keshi.name" (list $ $component)) -}}
{{- $running = add $running (dig "status" "replicas" 0 $found | int) -}}
{{- end -}}
{{- if or .Release.IsInstall (eq .Values.ledger.kind "sqlite") (and .Values.stopped (eq (int $running) 0)) -}}
migrate
{{- else -}}
check
{{- end -}}
{{- end -}}

{{- /* (root, name, values of the handler over the defaults) */ -}}
{{- define "keshi.part.handler" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
{{- $component := include "keshi.handler.component" (index . 1) -}}
{{- $systems := default (list (index . 1)) $own.systems -}}
component: {{ $component }}
container: handler
{{- if $own.image.repository }}
image: {{ include "keshi.image" (list $root $own.image (printf "handlers.%s.image" (index . 1))) }}
{{- else }}
image: {{ include "keshi.image" (list $root $root.Values.image.handlers "image.handlers") }}
{{- end }}
args: {{ toJson (concat (list "handler" "run") $systems) }}
set:
  KESHI_HEALTH_HOST: 0.0.0.0
  KESHI_WORKER_HEALTH_PORT: {{ $root.Values.healthPort | quote }}
  KESHI_WORKER_ALLOWED_HANDLERS: {{ join "," $systems | quote }}
  KESHI_API_URL: {{ include "keshi.api.url" $root | quote }}
  {{- if $root.Values.api.ca.secret }}
  KESHI_API_CAFILE: /etc/keshi/api-ca/{{ $root.Values.api.ca.key }}
  {{- end }}
env: {{ toJson $own.env }}
secret:
  {{- $secret := fromYaml (include "keshi.secret" (list $root $own $component)) }}
  {{- $_ := set $secret.env (gt (len $systems) 1 | ternary "KESHI_API_TOKENS" "KESHI_API_TOKEN") $own.tokenKey }}
  {{- toYaml $secret | nindent 2 }}
kafka: true
kafkaUser: {{ toJson $own.kafkaUser }}
api: true
inventory: {{ $own.inventoryVariable | quote }}
port: {name: health, number: {{ $root.Values.healthPort }}}
live: true
linger: 0
grace: 45
resources: {{ toJson $own.resources }}
egress: {{ toJson $own.egress }}
{{- end -}}

{{- define "keshi.handler.component" -}}
{{- printf "handler-%s" (. | replace "_" "-") -}}
{{- end -}}

{{- define "keshi.api.url" -}}
{{- default (printf "http://%s.%s.svc:%d" (include "keshi.name" (list . "api")) .Release.Namespace (int .Values.api.port)) .Values.api.url -}}
{{- end -}}

{{- /* The enabled handlers, each over the defaults, by name. */ -}}
{{- define "keshi.handlers" -}}
{{- $found := dict -}}
{{- range $name, $given := .Values.handlers -}}
{{- $own := mergeOverwrite (deepCopy $.Values.handlerDefaults) (deepCopy (default dict $given)) -}}
{{- if $own.enabled }}{{ $_ := set $found $name $own }}{{ end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
