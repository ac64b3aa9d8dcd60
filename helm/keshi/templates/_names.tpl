{{- /* Names, labels, images. */ -}}

{{- /* What all names begin with; short enough for "-handler-" and forty letters behind it. */ -}}
{{- define "keshi.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "keshi" .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-keshi" (.Release.Name | trunc 24 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- /* (root, component): the name of everything that belongs to one workload. */ -}}
{{- define "keshi.name" -}}
{{- printf "%s-%s" (include "keshi.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{- /* (root, component) */ -}}
{{- define "keshi.selector" -}}
app.kubernetes.io/name: keshi
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* (root, component) */ -}}
{{- define "keshi.labels" -}}
{{- $root := index . 0 -}}
{{ include "keshi.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: keshi
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
{{- end -}}

{{- /* (root, component) */ -}}
{{- define "keshi.metadata" -}}
name: {{ include "keshi.name" . }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "keshi.labels" . | nindent 2 }}
{{- end -}}

{{- /* (root, image, where it stands): a digest wins over a tag, and no tag means this version. */ -}}
{{- define "keshi.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := required (printf "%s.repository: name the image; the README of the chart says how to build it" (index . 2)) $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}
