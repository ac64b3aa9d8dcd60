{{- /* What the schema of the values cannot say, or not clearly. Each line says what to do. */ -}}
{{- define "keshi.checks" -}}
{{- $values := .Values -}}
{{- if eq $values.ledger.kind "sqlite" -}}
{{- if gt (int $values.orchestrator.replicas) 1 -}}
{{- fail (printf "orchestrator.replicas is %d and ledger.kind is sqlite: SQLite takes one orchestrator on one host. Set orchestrator.replicas to 1, or ledger.kind to postgres" (int $values.orchestrator.replicas)) -}}
{{- end -}}
{{- if gt (int $values.api.replicas) 1 -}}
{{- fail (printf "api.replicas is %d and ledger.kind is sqlite: the API runs in the orchestrator's pod, once. Set api.replicas to 1, or ledger.kind to postgres" (int $values.api.replicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.inventory.content $values.inventory.configMap -}}
{{- fail "inventory.content and inventory.configMap are both given: take one of them out" -}}
{{- end -}}
{{- if not (or $values.inventory.content $values.inventory.configMap) -}}
{{- fail "no inventory: give it with --set-file inventory.content=inventory.yaml, or name a ConfigMap that has it in inventory.configMap" -}}
{{- end -}}
{{- if and $values.api.tokens.content $values.api.tokens.configMap -}}
{{- fail "api.tokens.content and api.tokens.configMap are both given: take one of them out" -}}
{{- end -}}
{{- if eq (int $values.api.port) (int $values.healthPort) -}}
{{- fail (printf "api.port and healthPort are both %d: choose two" (int $values.api.port)) -}}
{{- end -}}
{{- include "keshi.checks.partitions" (list . "orchestrator.replicas" $values.orchestrator.replicas) -}}
{{- include "keshi.checks.handlers" . -}}
{{- include "keshi.checks.secrets" . -}}
{{- end -}}

{{- /* (root, value, number): a member of a group without a partition has nothing to do. */ -}}
{{- define "keshi.checks.partitions" -}}
{{- $partitions := int (index . 0).Values.topics.partitions -}}
{{- if gt (int (index . 2)) $partitions -}}
{{- fail (printf "%s is %d, and there are %d partitions (topics.partitions): whoever has none stands idle" (index . 1) (int (index . 2)) $partitions) -}}
{{- end -}}
{{- end -}}

{{- define "keshi.checks.handlers" -}}
{{- $components := dict -}}
{{- $served := dict -}}
{{- range $name, $own := fromYaml (include "keshi.handlers" .) -}}
{{- $component := include "keshi.handler.component" $name -}}
{{- if hasKey $components $component }}{{ fail (printf "handlers.%s and handlers.%s would have the same name in the cluster: rename one" (get $components $component) $name) }}{{ end -}}
{{- $_ := set $components $component $name -}}
{{- range default (list $name) $own.systems -}}
{{- if hasKey $served . }}{{ fail (printf "handlers.%s and handlers.%s both serve %s: let one do it" (get $served .) $name .) }}{{ end -}}
{{- $_ := set $served . $name -}}
{{- end -}}
{{- $scaling := $own.autoscaling -}}
{{- if $scaling.enabled -}}
{{- include "keshi.checks.partitions" (list $ (printf "handlers.%s.autoscaling.maxReplicas" $name) $scaling.maxReplicas) -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}{{ fail (printf "handlers.%s.autoscaling: minReplicas is more than maxReplicas" $name) }}{{ end -}}
{{- else -}}
{{- include "keshi.checks.partitions" (list $ (printf "handlers.%s.replicas" $name) $own.replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Who breaks into one workload must not find another one's secrets there. */ -}}
{{- define "keshi.checks.secrets" -}}
{{- $owners := dict -}}
{{- range $component, $own := fromYaml (include "keshi.secrets" .) -}}
{{- if hasKey $owners $own.name }}{{ fail (printf "%s and %s name the same Secret, %s: give each its own" (get $owners $own.name) $component $own.name) }}{{ end -}}
{{- $_ := set $owners $own.name $component -}}
{{- end -}}
{{- end -}}

{{- /* The Secret of each workload with the keys that it has to have, by component. */ -}}
{{- define "keshi.secrets" -}}
{{- $root := . -}}
{{- $parts := list (fromYaml (include "keshi.part.orchestrator" .)) (fromYaml (include "keshi.part.api" .)) -}}
{{- if .Values.topics.enabled }}{{ $parts = append $parts (fromYaml (include "keshi.part.topics" .)) }}{{ end -}}
{{- if .Values.migrate.enabled }}{{ $parts = append $parts (fromYaml (include "keshi.part.migrate" .)) }}{{ end -}}
{{- range $name, $own := fromYaml (include "keshi.handlers" .) }}{{ $parts = append $parts (fromYaml (include "keshi.part.handler" (list $root $name $own))) }}{{ end -}}
{{- $found := dict -}}
{{- range $part := $parts -}}
{{- $keys := concat (values $part.secret.env) (values $part.secret.files) $part.secret.beside -}}
{{- if and $part.kafka (not $part.kafkaUser.secret) -}}
{{- if hasPrefix "SASL" $root.Values.kafka.securityProtocol -}}
{{- if not $part.kafkaUser.name }}{{ $keys = append $keys $root.Values.kafka.sasl.usernameKey }}{{ end -}}
{{- $keys = append $keys $root.Values.kafka.sasl.passwordKey -}}
{{- end -}}
{{- if $root.Values.kafka.clientCertificate.enabled -}}
{{- $keys = concat $keys (list $root.Values.kafka.clientCertificate.certificateKey $root.Values.kafka.clientCertificate.privateKeyKey) -}}
{{- end -}}
{{- end -}}
{{- if $keys }}{{ $_ := set $found $part.component (dict "name" $part.secret.name "keys" ($keys | uniq | sortAlpha)) }}{{ end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
