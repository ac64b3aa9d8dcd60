{{- /* What the pods of all workloads have in common. */ -}}

{{- /* (root, component): its service account. It may ask the cluster for nothing. */ -}}
{{- define "keshi.serviceaccount" -}}
{{- $root := index . 0 -}}
{{- $annotations := index . 2 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "keshi.metadata" . | nindent 2 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{- /* (root, component): labels and annotations of a pod. A new inventory or new tokens start it anew. */ -}}
{{- define "keshi.pod.metadata" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $annotations := deepCopy $values.podAnnotations -}}
{{- range $what, $content := dict "inventory" $values.inventory.content "tokens" $values.api.tokens.content -}}
{{- if and $content (has $what (index $ 2)) }}{{ $_ := set $annotations (printf "checksum/%s" $what) (sha256sum $content) }}{{ end -}}
{{- end -}}
labels:
  {{- include "keshi.labels" . | nindent 2 }}
  {{- if hasPrefix "handler-" (index . 1) }}
  keshi-role: handler
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* (root, parts in this pod): all of the pod's specification but its containers. */ -}}
{{- define "keshi.pod" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $parts := index . 1 -}}
{{- $component := (first $parts).component -}}
{{- $grace := 0 -}}
{{- range $parts }}{{ $grace = max $grace (int .grace) }}{{ end -}}
serviceAccountName: {{ include "keshi.name" (list $root $component) }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $grace }}
securityContext:
  runAsNonRoot: true
  {{- with $values.user.uid }}
  runAsUser: {{ . }}
  {{- end }}
  {{- with $values.user.gid }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $values.topologySpread.enabled (first $parts).live }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "keshi.selector" (list $root $component) | nindent 8 }}
  {{- end }}
{{- end }}
volumes:
  {{- include "keshi.volumes" . | trim | nindent 2 }}
{{- end -}}

{{- /* (root, parts in this pod): each file of a Secret by its key, and none besides. */ -}}
{{- define "keshi.volumes" -}}
{{- $root := index . 0 -}}
{{- $kafka := $root.Values.kafka -}}
{{- $needs := dict -}}
- name: scratch
  emptyDir: {sizeLimit: 64Mi}
{{- range $part := index . 1 }}
{{- range $what := list "kafka" "inventory" "tokens" "api" }}{{ if index $part $what }}{{ $_ := set $needs $what true }}{{ end }}{{ end }}
{{- with $part.secret.files }}
- name: secret-{{ $part.container }}
  {{- include "keshi.keys" (list $part.secret.name (concat (values .) $part.secret.beside)) | nindent 2 }}
{{- end }}
{{- if and $part.kafka $kafka.clientCertificate.enabled }}
- name: kafka-user-{{ $part.container }}
  {{- $pair := list $kafka.clientCertificate.certificateKey $kafka.clientCertificate.privateKeyKey }}
  {{- include "keshi.keys" (list (default $part.secret.name $part.kafkaUser.secret) $pair) | nindent 2 }}
{{- end }}
{{- end }}
{{- if and $needs.kafka $kafka.ca.secret }}
- name: kafka-ca
  {{- include "keshi.keys" (list $kafka.ca.secret (list $kafka.ca.key)) | nindent 2 }}
{{- end }}
{{- if and $needs.api $root.Values.api.ca.secret }}
- name: api-ca
  {{- include "keshi.keys" (list $root.Values.api.ca.secret (list $root.Values.api.ca.key)) | nindent 2 }}
{{- end }}
{{- if $needs.inventory }}
- name: inventory
  configMap:
    name: {{ include "keshi.inventory.name" (list $root (first (index . 1)).live) }}
{{- end }}
{{- if $needs.tokens }}
- name: tokens
  configMap:
    name: {{ default (include "keshi.name" (list $root "tokens")) $root.Values.api.tokens.configMap }}
{{- end }}
{{- end -}}

{{- define "keshi.keys" -}}
secret:
  secretName: {{ index . 0 }}
  defaultMode: 0440
  items:
    {{- range index . 1 | uniq | sortAlpha }}
    - {key: {{ . | quote }}, path: {{ . | quote }}}
    {{- end }}
{{- end -}}

{{- /* (root, whether for what stays): a job that runs before all else has a copy of its own. */ -}}
{{- define "keshi.inventory.name" -}}
{{- $root := index . 0 -}}
{{- default (include "keshi.name" (list $root (index . 1 | ternary "inventory" "topics-inventory"))) $root.Values.inventory.configMap -}}
{{- end -}}

{{- /* (root, component): how many pods may be away at a time. */ -}}
{{- define "keshi.disruption" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "keshi.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ $root.Values.podDisruptionBudget.maxUnavailable }}
  # A pod that does not work protects nobody, and must not hold up a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "keshi.selector" . | nindent 6 }}
{{- end -}}
