// Command names compiles what was generated for colliding names, and calls some of it.
package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectplugin "github.com/masegraye/connect-plugin-go"

	namesv1 "example.com/gentest/names/v1"
	"example.com/gentest/names/v1/namesv1connect"
	"example.com/gentest/names/v1/namesv1delegate"
	"example.com/gentest/names/v1/namesv1plugin"
	severalv1 "example.com/gentest/several/v1"
	"example.com/gentest/several/v1/severalv1connect"
	"example.com/gentest/several/v1/severalv1delegate"
	"example.com/gentest/several/v1/severalv1plugin"
)

type server struct {
	namesv1connect.UnimplementedNamesHandler

	locals *namesv1.LocalsRequest
}

func (s *server) Locals(_ context.Context, req *connect.Request[namesv1.LocalsRequest]) (*connect.Response[emptypb.Empty], error) {
	s.locals = req.Msg
	return connect.NewResponse(&emptypb.Empty{}), nil
}

type several struct{}

func (several) Do(_ context.Context, req *connect.Request[severalv1.DoRequest]) (*connect.Response[severalv1.DoResponse], error) {
	return connect.NewResponse(&severalv1.DoResponse{Text: req.Msg.GetText()}), nil
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(ctx context.Context) error {
	set := connectplugin.PluginSet{}
	for _, p := range []connectplugin.Plugin{
		&namesv1plugin.NamesPlugin{}, &namesv1plugin.KVPlugin{}, &namesv1plugin.KVServicePlugin{}, &namesv1plugin.NewPlugin{},
		&namesv1plugin.KVPluginPlugin{}, &namesv1plugin.ProvideKVPlugin{}, &namesv1plugin.KVTypePlugin{},
		&namesv1plugin.XLeading_ServicePlugin{}, &namesv1plugin.LowerPlugin{}, &namesv1plugin.ServicePlugin{},
		&severalv1plugin.FirstPlugin{}, &severalv1plugin.SecondPlugin{},
	} {
		if name := p.Metadata().Name; set[name] != nil {
			return fmt.Errorf("two plugins are named %s", name)
		} else {
			set[name] = p
		}
	}
	if err := set.Validate(); err != nil {
		return err
	}
	return call(ctx)
}

func call(ctx context.Context) error {
	impl := &server{}
	_, handler, err := (&namesv1plugin.NamesPlugin{}).ConnectServer(impl)
	if err != nil {
		return err
	}
	host := httptest.NewServer(handler)
	defer host.Close()
	d := namesv1delegate.NewNamesFromURL(host.URL)
	err = d.Locals(ctx, "ctx", "d", "req", "res", "err", "context", "connect", "delegate", "namesv1", "emptypb", "namesv1connect", "http",
		"requests", "client", "names_client", nil, new("other"))
	if err != nil || impl.locals.GetContext() != "context" || impl.locals.GetErr() != "err" || impl.locals.GetOther() != "other" {
		return fmt.Errorf("Locals: %v, %w", impl.locals, err)
	}
	_, first := severalv1connect.NewFirstHandler(several{})
	other := httptest.NewServer(first)
	defer other.Close()
	if res, err := severalv1delegate.NewFirstFromURL(other.URL).Do(ctx, "x"); err != nil || res.GetText() != "x" {
		return fmt.Errorf("Do: %v, %w", res, err)
	}
	return nil
}
