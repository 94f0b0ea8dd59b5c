// Command host is a host with a service of its own that plugins call, each for itself,
// and that operators may call with a key.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
)

const (
	settings     = kvv1plugin.KVServiceType // the key is the name that the plugin has
	ownerOnly    = 0o600
	ownerOnlyDir = 0o700
)

var (
	errKey      = errors.New("unknown key")
	errNobody   = errors.New("who calls is not known")
	errNotThere = errors.New("there is no such setting")
)

func main() {
	devhost.Main(func(context.Context) error {
		key, err := operatorKey()
		if err != nil {
			return err
		}

		return devhost.Serve(&connectplugin.ServeConfig{
			Plugins: connectplugin.PluginSet{settings: &kvv1plugin.KVServicePlugin{}},
			Impls:   map[string]any{settings: &service{values: map[string]map[string][]byte{}}},
			Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"blue":  {HostPlugins: []string{settings}},
				"green": {HostPlugins: []string{settings}},
				"grey":  {},
			}},
			AuthProviders: []connectplugin.AuthProvider{connectplugin.NewAPIKeyAuth("", key.operator)},
		}, "blue", "green", "grey")
	})
}

// accessKey is the key of operators.
type accessKey struct{ connectplugin.Secret }

// operatorKey makes a new key and writes it to run/operator-key.
func operatorKey() (accessKey, error) {
	key := rand.Text()
	if err := os.MkdirAll("run", ownerOnlyDir); err != nil {
		return accessKey{}, err
	}

	return accessKey{connectplugin.Secret(key)}, os.WriteFile("run/operator-key", []byte(key), ownerOnly)
}

// operator says who has the key.
func (k accessKey) operator(key string) (identity string, claims map[string]string, err error) {
	if !k.Equal(connectplugin.Secret(key)) {
		return "", nil, errKey
	}

	return "operator", nil, nil
}

// service keeps the settings of each plugin apart.
type service struct {
	kvv1connect.UnimplementedKVServiceHandler

	mu     sync.Mutex
	values map[string]map[string][]byte // by owner and key
}

// owner is whose settings a call is about: a plugin's own, whatever it asks for.
func owner(ctx context.Context) (string, error) {
	if caller, ok := connectplugin.CallerFromContext(ctx); ok {
		return caller.SelfID, nil
	}

	if auth := connectplugin.GetAuthContext(ctx); auth != nil {
		return auth.Identity, nil
	}

	return "", connect.NewError(connect.CodeUnauthenticated, errNobody)
}

// Get returns a setting of the caller.
func (s *service) Get(ctx context.Context, req *kvv1.GetRequest) (*kvv1.GetResponse, error) {
	who, err := owner(ctx)
	if err != nil {
		return nil, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	value, ok := s.values[who][req.GetKey()]
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, errNotThere)
	}

	return &kvv1.GetResponse{Value: value}, nil
}

// Put stores a setting of the caller.
func (s *service) Put(ctx context.Context, req *kvv1.PutRequest) (*kvv1.PutResponse, error) {
	who, err := owner(ctx)
	if err != nil {
		return nil, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if s.values[who] == nil {
		s.values[who] = map[string][]byte{}
	}

	s.values[who][req.GetKey()] = req.GetValue()

	return &kvv1.PutResponse{}, nil
}

// List streams whose settings there are, to operators alone.
func (s *service) List(ctx context.Context, _ *kvv1.ListRequest, out *connect.ServerStream[kvv1.ListResponse]) error {
	if auth := connectplugin.GetAuthContext(ctx); auth == nil || auth.Identity != "operator" {
		return connect.NewError(connect.CodePermissionDenied, errKey)
	}

	s.mu.Lock()
	owners := slices.Sorted(maps.Keys(s.values))
	s.mu.Unlock()

	for _, who := range owners {
		if err := out.Send(&kvv1.ListResponse{Key: who}); err != nil {
			return fmt.Errorf("list: %w", err)
		}
	}

	return nil
}
