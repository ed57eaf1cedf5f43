{{/* The release's name is the nodes' name: pods are RELEASE-0, RELEASE-1, and so on. */}}
{{- define "dunlin.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "dunlin.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "dunlin.selector" -}}
app.kubernetes.io/name: dunlin
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "dunlin.labels" -}}
app.kubernetes.io/name: dunlin
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "dunlin.certificates" -}}
{{- .Values.certificates.secret | default (printf "%s-certificates" (include "dunlin.name" .)) -}}
{{- end -}}

{{/* What every process that joins the cluster is told. */}}
{{- define "dunlin.join" -}}
- name: DUNLIN_CLUSTER
  value: {{ .Values.cluster.store | quote }}
- name: DUNLIN_BLOBS
  value: {{ .Values.cluster.blobs | quote }}
- name: DUNLIN_LEASE_MS
  value: {{ .Values.cluster.leaseMs | int | quote }}
- name: DUNLIN_CLUSTER_DIR
  value: /etc/dunlin/cluster
- name: AWS_REGION
  value: {{ .Values.bucket.region | quote }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .Values.bucket.secret }}
      key: AWS_ACCESS_KEY_ID
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.bucket.secret }}
      key: AWS_SECRET_ACCESS_KEY
{{- end -}}

{{- define "dunlin.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "dunlin.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
