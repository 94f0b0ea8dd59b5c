package host_test

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// unmade are zero values of every type with methods on its pointer.
func unmade() []any {
	return []any{
		new(connectplugin.APIKeyAuth), new(connectplugin.AuditSink), new(connectplugin.Authority), new(connectplugin.CapabilityBroker),
		new(connectplugin.CapabilityConn), new(connectplugin.CircuitBreaker), new(connectplugin.Client), new(connectplugin.ClientConfig),
		new(connectplugin.GoPluginStrategy), new(connectplugin.HandshakeServer), new(connectplugin.HealthServer), new(connectplugin.Host),
		new(connectplugin.InMemoryStrategy), new(connectplugin.LaunchTLS), new(connectplugin.LifecycleServer), new(connectplugin.MTLSAuth),
		new(connectplugin.Platform), new(connectplugin.PluginControlClient), new(connectplugin.PluginIdentityClient),
		new(connectplugin.PluginLauncher), new(connectplugin.PluginServerConfig), new(connectplugin.ProcessStrategy), new(connectplugin.Secret),
		new(connectplugin.ServeConfig), new(connectplugin.ServiceConn), new(connectplugin.ServiceRegistry), new(connectplugin.ServiceRouter),
		new(connectplugin.StaticDiscovery), new(connectplugin.TokenAuth), new(connectplugin.TokenBucketLimiter),
	}
}

// No method of what nobody made ends with a panic of the runtime, which says nothing of what to do.
func TestZero_IsToldInWords(t *testing.T) {
	t.Parallel()
	for _, zero := range unmade() {
		of := reflect.TypeOf(zero)
		values := map[string]reflect.Value{"zero": reflect.ValueOf(zero)}
		if name := of.Elem().Name(); name == "AuditSink" || name == "StaticDiscovery" {
			values["nil"] = reflect.Zero(of) // others call them, much later
		}
		for what, v := range values {
			for m := range of.Methods() {
				if m.Name == "String" || m.Name == "GoString" || m.Name == "LogValue" || m.Name == "Format" { // whoever prints takes that
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, %s", of.Elem().Name(), what, m.Name), func(t *testing.T) {
					t.Parallel()
					value := v
					if what == "zero" {
						value = reflect.New(of.Elem())
					}
					if said := callZero(t, value, m); said != "" {
						t.Error(said)
					}
				})
			}
		}
	}
}

// callZero calls a method with arguments that are of no account, and returns how it panics, if not in words.
func callZero(t *testing.T, v reflect.Value, m reflect.Method) (said string) {
	t.Helper()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			said = p.Error()
		default:
			if text := fmt.Sprint(p); !strings.HasPrefix(text, "connectplugin: ") || !strings.Contains(text, "make one with ") {
				said = text
			}
		}
	}()
	args := []reflect.Value{v}
	for in := range m.Type.Ins() {
		if len(args) > 1 || in != v.Type() {
			args = append(args, argument(t, in))
		}
	}
	args = args[:m.Type.NumIn()]
	if m.Type.IsVariadic() {
		args = args[:len(args)-1]
	}
	m.Func.Call(args)
	return ""
}

// argument is one that a caller might pass.
func argument(t *testing.T, of reflect.Type) reflect.Value {
	t.Helper()
	given := []any{
		t.Context(), connectplugin.NewStaticDiscovery(nil), httptest.NewRequest(http.MethodGet, "/services/a/b/c", nil), httptest.NewRecorder(),
		connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: "1.0.0"}),
		connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: "a"}),
		connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "a"}),
		connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "a"}),
		connect.NewRequest(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}),
		connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "a"}),
		connect.NewRequest(&connectpluginv1.HealthCheckRequest{}),
		connect.NewRequest(&connectpluginv1.HandshakeRequest{SelfId: "a"}),
		connectplugin.NewInMemoryStrategy(nil), func() error { return nil },
	}
	for _, g := range given {
		if reflect.TypeOf(g).AssignableTo(of) {
			v := reflect.New(of).Elem()
			v.Set(reflect.ValueOf(g))
			return v
		}
	}
	return reflect.Zero(of)
}

// The list above has every exported type with exported methods on its pointer.
func TestZero_AllAreAsked(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, zero := range unmade() {
		listed[reflect.TypeOf(zero).Elem().Name()] = true
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			of := pointerOf(d)
			if of == "" {
				continue
			}
			found++
			if !listed[of] {
				t.Errorf("%s: nobody asks a zero %s what it says", name, of)
			}
		}
	}
	if found < 50 {
		t.Errorf("found %d methods in %d files", found, len(files))
	}
}

// pointerOf is the exported type of whose pointer a declaration is an exported method, empty where it is none.
func pointerOf(d ast.Decl) string {
	f, ok := d.(*ast.FuncDecl)
	if !ok || f.Recv == nil || !f.Name.IsExported() {
		return ""
	}
	star, ok := f.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return ""
	}
	if of, ok := star.X.(*ast.Ident); ok && of.IsExported() {
		return of.Name
	}
	return ""
}

// A stream that is none is told, too.
func TestPumpToStream_SaysThatThereIsNoStream(t *testing.T) {
	t.Parallel()
	ch := make(chan int, 1)
	ch <- 1
	for what, stream := range map[string]*connect.ServerStream[int]{"nil": nil, "zero": {}} {
		said := sentence(t, func() error { return connectplugin.PumpToStream(context.Background(), ch, nil, stream) })
		if !strings.Contains(said, "PumpToStream: the stream is nil or a zero value") {
			t.Errorf("%s said %q", what, said)
		}
	}
}
