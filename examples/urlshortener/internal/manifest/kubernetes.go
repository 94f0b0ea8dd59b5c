// Package manifest reads the manifests of the example as strictly as the programs do that
// they are for: a field that the types here do not have is an error. The types have the
// fields that the example uses, as the API of Kubernetes (apps/v1, v1) and the Compose
// specification name them.
package manifest

import (
	"bytes"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Object is one document of a Kubernetes manifest.
type Object struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   Metadata `yaml:"metadata"`

	// One of them is set, as Kind says.
	Deployment *Deployment `yaml:"-"`
	Service    *Service    `yaml:"-"`
	Claim      *Claim      `yaml:"-"`
}

// Metadata is ObjectMeta.
type Metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

// Service is a ServiceSpec.
type Service struct {
	Selector map[string]string `yaml:"selector"`
	Ports    []struct {
		Name       string `yaml:"name"`
		Port       int    `yaml:"port"`
		TargetPort string `yaml:"targetPort"`
	} `yaml:"ports"`
}

// Claim is a PersistentVolumeClaimSpec.
type Claim struct {
	AccessModes []string `yaml:"accessModes"`
	Resources   struct {
		Requests map[string]string `yaml:"requests"`
	} `yaml:"resources"`
}

// Deployment is a DeploymentSpec.
type Deployment struct {
	Replicas int `yaml:"replicas"`
	Strategy struct {
		Type string `yaml:"type"`
	} `yaml:"strategy"`
	Selector struct {
		MatchLabels map[string]string `yaml:"matchLabels"`
	} `yaml:"selector"`
	Template struct {
		Metadata Metadata `yaml:"metadata"`
		Spec     Pod      `yaml:"spec"`
	} `yaml:"template"`
}

// Pod is a PodSpec.
type Pod struct {
	AutomountServiceAccountToken  *bool       `yaml:"automountServiceAccountToken"`
	TerminationGracePeriodSeconds int         `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               PodSecurity `yaml:"securityContext"`
	Containers                    []Container `yaml:"containers"`
	Volumes                       []Volume    `yaml:"volumes"`
}

// PodSecurity is a PodSecurityContext.
type PodSecurity struct {
	RunAsNonRoot   bool `yaml:"runAsNonRoot"`
	RunAsUser      int  `yaml:"runAsUser"`
	RunAsGroup     int  `yaml:"runAsGroup"`
	FSGroup        int  `yaml:"fsGroup"`
	SeccompProfile struct {
		Type string `yaml:"type"`
	} `yaml:"seccompProfile"`
}

// Container is what is needed of one.
type Container struct {
	Name  string   `yaml:"name"`
	Image string   `yaml:"image"`
	Args  []string `yaml:"args"`
	Env   []struct {
		Name      string `yaml:"name"`
		ValueFrom struct {
			FieldRef struct {
				FieldPath string `yaml:"fieldPath"`
			} `yaml:"fieldRef"`
		} `yaml:"valueFrom"`
	} `yaml:"env"`
	Ports []struct {
		Name          string `yaml:"name"`
		ContainerPort int    `yaml:"containerPort"`
	} `yaml:"ports"`
	ReadinessProbe *Probe `yaml:"readinessProbe"`
	LivenessProbe  *Probe `yaml:"livenessProbe"`
	Resources      struct {
		Requests map[string]string `yaml:"requests"`
		Limits   map[string]string `yaml:"limits"`
	} `yaml:"resources"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct {
			Drop []string `yaml:"drop"`
		} `yaml:"capabilities"`
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string `yaml:"name"`
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

// Probe asks over HTTP, runs a command or opens a connection.
type Probe struct {
	HTTPGet *struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
	Exec *struct {
		Command []string `yaml:"command"`
	} `yaml:"exec"`
	TCPSocket *struct {
		Port string `yaml:"port"`
	} `yaml:"tcpSocket"`
	InitialDelaySeconds int `yaml:"initialDelaySeconds"`
	PeriodSeconds       int `yaml:"periodSeconds"`
	TimeoutSeconds      int `yaml:"timeoutSeconds"`
	FailureThreshold    int `yaml:"failureThreshold"`
}

// Items are keys of a secret and the files that they become.
type Items struct {
	Name  string `yaml:"name"`
	Items []struct {
		Key  string `yaml:"key"`
		Path string `yaml:"path"`
	} `yaml:"items"`
}

// Volume is one of the kinds that the example mounts.
type Volume struct {
	Name   string `yaml:"name"`
	Secret *struct {
		SecretName  string `yaml:"secretName"`
		DefaultMode int    `yaml:"defaultMode"`
	} `yaml:"secret"`
	Projected *struct {
		DefaultMode int `yaml:"defaultMode"`
		Sources     []struct {
			Secret Items `yaml:"secret"`
		} `yaml:"sources"`
	} `yaml:"projected"`
	ConfigMap *struct {
		Name string `yaml:"name"`
	} `yaml:"configMap"`
	EmptyDir              *struct{} `yaml:"emptyDir"`
	PersistentVolumeClaim *struct {
		ClaimName string `yaml:"claimName"`
	} `yaml:"persistentVolumeClaim"`
}

var errKind = errors.New("is no kind that the example has")

// ReadKubernetes reads the documents of a manifest.
func ReadKubernetes(raw []byte) ([]Object, error) {
	var objects []Object

	for i, document := range bytes.Split(raw, []byte("\n---\n")) {
		object, err := readObject(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}

		objects = append(objects, object)
	}

	return objects, nil
}

// readObject reads what Kind says is in the document.
func readObject(document []byte) (Object, error) {
	var head Object
	if err := yaml.Unmarshal(document, &head); err != nil {
		return head, err
	}

	switch head.APIVersion + " " + head.Kind {
	case "apps/v1 Deployment":
		head.Deployment = &Deployment{}

		return head, readSpec(document, head.Deployment)
	case "v1 Service":
		head.Service = &Service{}

		return head, readSpec(document, head.Service)
	case "v1 PersistentVolumeClaim":
		head.Claim = &Claim{}

		return head, readSpec(document, head.Claim)
	default:
		return head, fmt.Errorf("%w: %s %s", errKind, head.APIVersion, head.Kind)
	}
}

// readSpec reads a document with a spec of one type and knows no other fields.
func readSpec[T any](document []byte, spec *T) error {
	whole := struct {
		Object `yaml:",inline"`

		Spec *T `yaml:"spec"`
	}{Spec: spec}

	return strict(document, &whole)
}

// strict decodes one document and refuses fields that are not known, or there twice.
func strict(document []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(document))
	dec.KnownFields(true)

	if err := dec.Decode(into); err != nil {
		return err
	}

	return nil
}
