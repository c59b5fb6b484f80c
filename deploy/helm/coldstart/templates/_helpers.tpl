{{- define "coldstart.labels" -}}
app.kubernetes.io/name: coldstart
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "coldstart.env" -}}
{{- range $section, $keys := .root.Values.settings }}
{{- range $key, $value := $keys }}
- name: COLDSTART_{{ upper $section }}__{{ upper $key }}
  value: {{ (kindIs "float64" $value | ternary (toJson $value) (toString $value)) | quote }}
{{- end }}
{{- end }}
{{- if ne .role "probe" }}
- name: COLDSTART_{{ upper .role }}__SHUTDOWN_S
  value: {{ .root.Values.shutdownSeconds | quote }}
{{- end }}
{{- $probe := eq .role "probe" }}
{{- range $name, $secret := .root.Values.secrets }}
{{- /* The probe needs its way to Kafka alone. */ -}}
{{- if or (not $probe) (hasPrefix "COLDSTART_KAFKA__" $name) }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {{ toJson $secret }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What all pods share. */ -}}
{{- define "coldstart.pod" -}}
automountServiceAccountToken: false
# Else a Service's address becomes a variable COLDSTART_..., which the roles refuse as an unknown setting.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add .root.Values.shutdownSeconds 10 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "coldstart.container" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
ports:
  - name: http
    containerPort: {{ .port }}
# Restoring is not a reason to be killed: only /livez is.
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}
