//go:build unix

package urlshortener_test

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/process"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/manifest"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/stack"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// programs are those with an image of their own.
func programs() []string { return []string{"api", "host", "logger", "storage"} }

// readManifests reads every Kubernetes manifest of the example.
func readManifests(t *testing.T) []manifest.Object {
	t.Helper()

	paths, err := filepath.Glob("deploy/kubernetes/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d manifests, %v", len(paths), err)
	}

	var objects []manifest.Object

	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}

		read, err := manifest.ReadKubernetes(raw)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}

		objects = append(objects, read...)
	}

	return objects
}

// Every pod of the Kubernetes manifests runs one program with no more rights than that needs.
func TestKubernetesManifests(t *testing.T) {
	t.Parallel()

	var deployed, claims, services []string

	for _, o := range readManifests(t) {
		switch {
		case o.Service != nil:
			services = append(services, o.Metadata.Name)
		case o.Claim != nil:
			claims = append(claims, o.Metadata.Name)
		default:
			deployed = append(deployed, o.Metadata.Name)
			checkDeployment(t, o)
		}
	}

	slices.Sort(deployed)

	if !slices.Equal(deployed, programs()) || !slices.Equal(services, []string{"host"}) || !slices.Equal(claims, []string{"storage"}) {
		t.Errorf("deployments %v, services %v, claims %v", deployed, services, claims)
	}
}

func checkDeployment(t *testing.T, o manifest.Object) {
	t.Helper()

	name, d := o.Metadata.Name, o.Deployment
	pod := d.Template.Spec

	if d.Selector.MatchLabels["app"] != name || d.Template.Metadata.Labels["app"] != name || d.Replicas != 1 || d.Strategy.Type != "Recreate" {
		t.Errorf("%s: selects %v of %v", name, d.Selector.MatchLabels, d.Template.Metadata.Labels)
	}

	s := pod.SecurityContext
	if !s.RunAsNonRoot || s.RunAsUser == 0 || s.RunAsGroup == 0 || s.FSGroup != s.RunAsGroup || s.SeccompProfile.Type != "RuntimeDefault" ||
		pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Errorf("%s: security of the pod is %+v", name, s)
	}

	if len(pod.Containers) != 1 {
		t.Fatalf("%s: %d containers", name, len(pod.Containers))
	}

	c := pod.Containers[0]
	if cs := c.SecurityContext; !cs.ReadOnlyRootFilesystem || cs.AllowPrivilegeEscalation == nil || *cs.AllowPrivilegeEscalation ||
		!slices.Equal(cs.Capabilities.Drop, []string{"ALL"}) || c.Resources.Limits["memory"] == "" || strings.HasSuffix(c.Image, ":latest") {
		t.Errorf("%s: container %+v", name, c)
	}

	checkGrace(t, name, time.Duration(pod.TerminationGracePeriodSeconds)*time.Second)
	checkProbes(t, name, &c)

	checkVolumes(t, name, pod)
}

// checkGrace demands that a program may end by itself before it is killed: the host with what its Cleanup might take, a plugin with the time
// in which it tells its host that it comes and goes.
func checkGrace(t *testing.T, name string, killed time.Duration) {
	t.Helper()

	const cleanup, plugin, telling = time.Second, 10 * time.Second, 3 * time.Second

	needs := plugin + telling
	if name == "host" {
		needs = 2*urlshortener.ShutdownGrace + cleanup
	}

	if killed <= needs {
		t.Errorf("%s is killed after %s and may need %s", name, killed, needs)
	}
}

// checkProbes demands that the host is asked in plaintext on a port of its own, as
// nothing else can be asked that speaks TLS 1.3 with HTTP/2 alone.
func checkProbes(t *testing.T, name string, c *manifest.Container) {
	t.Helper()

	live, ready := c.LivenessProbe, c.ReadinessProbe

	if name != "host" {
		if live == nil || live.TCPSocket == nil || len(c.Ports) != 1 || live.TCPSocket.Port != c.Ports[0].Name {
			t.Errorf("%s: liveness %+v of ports %v", name, live, c.Ports)
		}

		return
	}

	if live == nil || live.HTTPGet == nil || live.HTTPGet.Path != "/healthz" || ready == nil || ready.HTTPGet == nil ||
		ready.HTTPGet.Path != "/readyz" || len(c.Ports) != 2 || live.HTTPGet.Port != c.Ports[1].Name ||
		ready.HTTPGet.Port != c.Ports[1].Name || !slices.Contains(c.Args, "0.0.0.0:"+strconv.Itoa(c.Ports[1].ContainerPort)) {
		t.Errorf("host: liveness %+v, readiness %+v of ports %v", live, ready, c.Ports)
	}
}

// checkVolumes demands that what is mounted is there, and that credentials are files that
// others cannot read and the program cannot write.
func checkVolumes(t *testing.T, name string, pod manifest.Pod) {
	t.Helper()

	volumes := map[string]manifest.Volume{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v
	}

	for _, m := range pod.Containers[0].VolumeMounts {
		v, ok := volumes[m.Name]
		if !ok {
			t.Errorf("%s: there is no volume %s", name, m.Name)
		}

		delete(volumes, m.Name)

		var mode int

		switch {
		case v.Secret != nil:
			mode = v.Secret.DefaultMode
		case v.Projected != nil:
			mode = v.Projected.DefaultMode
		default:
			continue
		}

		if mode != 0o440 || !m.ReadOnly {
			t.Errorf("%s: credentials have mode %o, read only: %t", name, mode, m.ReadOnly)
		}
	}

	if len(volumes) > 0 {
		t.Errorf("%s: nobody mounts %v", name, volumes)
	}
}

// The host's pod has a secret for every plugin of the policy.
func TestKubernetesSecretsAreThoseOfThePolicy(t *testing.T) {
	t.Parallel()

	var policy struct{ Plugins map[string]any }
	if err := json.Unmarshal(urlshortener.Policy, &policy); err != nil {
		t.Fatal(err)
	}

	for _, o := range readManifests(t) {
		if o.Deployment == nil || o.Metadata.Name != "host" {
			continue
		}

		for _, source := range o.Deployment.Template.Spec.Volumes[0].Projected.Sources {
			for _, item := range source.Secret.Items {
				if source.Secret.Name == "enrolment" && item.Path == "plugins/"+item.Key+"/secret" {
					delete(policy.Plugins, item.Key)
				}
			}
		}
	}

	if len(policy.Plugins) > 0 {
		t.Errorf("no secret for %v", policy.Plugins)
	}
}

// The context of a build is the whole repository, and an image's layers and caches are read by many.
func TestBuildsAreSentNoCredentials(t *testing.T) {
	t.Parallel()

	const root = "../.."

	made, err := os.ReadFile("deploy/.gitignore")
	if err != nil {
		t.Fatal(err)
	}

	left, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}

	lines := strings.Split(string(left), "\n")

	for _, name := range append(strings.Fields(string(made)), "../../run", "../../../.git") {
		if name = filepath.Join("examples", "urlshortener", "deploy", name); !slices.Contains(lines, name) {
			t.Errorf(".dockerignore has no line %q", name)
		}
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()

	raw, err := os.ReadFile("deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}

	c, err := manifest.ReadCompose(raw)
	if err != nil {
		t.Fatal(err)
	}

	if len(c.Services) != len(programs()) {
		t.Errorf("%d services", len(c.Services))
	}

	for _, name := range programs() {
		s := c.Services[name]
		if !strings.HasPrefix(s.User, "${CREDENTIALS_USER:?") || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
			!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.Build.Args["PROGRAM"] != name || s.Hostname != name {
			t.Errorf("%s: %+v", name, s)
		}

		if _, err := os.Stat(filepath.Join("deploy", s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}

		if _, ok := c.Networks[cmp.Or(append(s.Networks, "")...)]; !ok {
			t.Errorf("%s: networks %v", name, s.Networks)
		}

		for _, v := range s.Volumes {
			if v.Type != "bind" || strings.HasPrefix(v.Target, "/credentials") != v.ReadOnly {
				t.Errorf("%s: volume %+v", name, v)
			}
		}

		killed, err := time.ParseDuration(s.StopGracePeriod)
		if err != nil {
			t.Fatal(err)
		}

		checkGrace(t, name, killed)

		if name != "host" && s.DependsOn["host"].Condition != "service_healthy" {
			t.Errorf("%s: depends on %v", name, s.DependsOn)
		}
	}

	if test := c.Services["host"].Healthcheck.Test; len(test) == 0 || test[0] != "CMD" || test[len(test)-1] != "check" {
		t.Errorf("the host's health check is %v", test)
	}
}

// What is wrong in a manifest is found.
func TestManifestsAreReadStrictly(t *testing.T) {
	t.Parallel()

	for name, text := range map[string]string{
		"field":   "apiVersion: apps/v1\nkind: Deployment\nspec: {replica: 1}",
		"nested":  "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {securityContext: {runAsRoot: false}}}}",
		"kind":    "apiVersion: v1\nkind: Deployment\nspec: {replicas: 1}",
		"type":    "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: many}",
		"twice":   "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1, replicas: 2}",
		"no YAML": "{",
	} {
		if o, err := manifest.ReadKubernetes([]byte(text)); err == nil {
			t.Errorf("%s: read %+v", name, o)
		}
	}

	if c, err := manifest.ReadCompose([]byte("services: {host: {readonly: true}}")); err == nil {
		t.Errorf("read %+v", c)
	}
}

// The programs run with the arguments of the manifests, with directories and addresses of
// this machine, and credentials of the mode that a mounted secret has.
func TestProgramsTakeTheArgumentsOfTheManifests(t *testing.T) {
	t.Parallel()

	s := &stack.Stack{Dir: t.TempDir(), Bin: bin}

	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})

	if err := s.Enrol(t.Context()); err != nil {
		t.Fatal(err)
	}

	addr, health := hosttest.FreeAddr(t), hosttest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	url := "https://localhost:" + port

	args := map[string][]string{}

	for _, o := range readManifests(t) {
		if o.Deployment == nil {
			continue
		}

		name, dir := o.Metadata.Name, s.PluginDir(o.Metadata.Name)
		if name == "host" {
			dir = s.Dir
		}

		here := strings.NewReplacer("0.0.0.0:8443", addr, "0.0.0.0:8081", health, "https://host:8443", url, "$(POD_IP):9443", "127.0.0.1:0",
			"/policy/policy.json", s.PolicyFile(), "/credentials", dir, "/data", s.Dir)
		for _, arg := range o.Deployment.Template.Spec.Containers[0].Args {
			args[name] = append(args[name], here.Replace(arg))
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	checks := [][]string{{"-addr", addr, "-dir", s.Dir, "check"}, {"-health", health, "check"}}
	for _, check := range checks {
		if out, err := process.Run(ctx, filepath.Join(bin, "host"), check...); err == nil {
			t.Errorf("a host that is not there is ready: %s", out)
		}
	}

	if err := os.Chmod(filepath.Join(s.PluginDir("logger"), "secret"), 0o440); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"host", "logger", "storage", "api"} {
		says := "service registered"
		if name == "host" {
			says = "the host passes on what plugins log"
		}

		if _, err := s.Start(ctx, name, says, args[name]...); err != nil {
			t.Fatal(err)
		}
	}

	for _, check := range checks {
		if _, err := process.Run(ctx, filepath.Join(bin, "host"), check...); err != nil {
			t.Errorf("%v: %v", check, err)
		}
	}

	s.URL = url
	if code, err := s.Shortener(ctx, "shorten", "https://example.com/"); err != nil || code == "" {
		t.Errorf("shorten: %q, %v", code, err)
	}
}
