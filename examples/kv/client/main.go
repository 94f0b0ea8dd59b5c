// Command client dispenses the host's key-value store and uses it: unary calls with the
// generated client, streams through the plain interface that is generated beside it.
package main

import (
	"context"
	"fmt"
	"iter"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1delegate"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
)

func main() { devhost.Main(run) }

func run(ctx context.Context) error {
	cfg, err := devhost.ClientConfig(new("client"))
	if err != nil {
		return err
	}

	cfg.Plugins = connectplugin.PluginSet{kvv1plugin.KVServiceType: &kvv1plugin.KVServicePlugin{}}

	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the process ends

	if err := client.Connect(ctx); err != nil {
		return err
	}

	kv, err := connectplugin.DispenseTyped[kvv1connect.KVServiceClient](client, kvv1plugin.KVServiceType)
	if err != nil {
		return err
	}

	if _, err := kv.Put(ctx, &kvv1.PutRequest{Key: "greeting", Value: []byte("hello")}); err != nil {
		return err
	}

	res, err := kv.Get(ctx, &kvv1.GetRequest{Key: "greeting"})
	if err != nil {
		return err
	}

	fmt.Printf("greeting is %s\n", res.GetValue())

	return streams(ctx, kvv1delegate.New(kv))
}

func streams(ctx context.Context, kv kvv1delegate.KVService) error {
	imported, err := kv.Import(ctx, squares(10))
	if err != nil {
		return err
	}

	fmt.Println("imported", imported.GetCount())

	var keys []string

	for res, err := range kv.List(ctx, "square/") {
		if err != nil {
			return err
		}

		keys = append(keys, res.GetKey())
	}

	fmt.Println("there are", len(keys), "squares")

	for res, err := range kv.Lookup(ctx, ask(keys[2], "square/none")) {
		if err != nil {
			return err
		}

		if res.Value == nil {
			fmt.Println(res.GetKey(), "is not there")
		} else {
			fmt.Printf("%s is %s\n", res.GetKey(), res.GetValue())
		}
	}

	return nil
}

// squares yields what is imported.
func squares(n int) iter.Seq2[*kvv1.ImportRequest, error] {
	return func(yield func(*kvv1.ImportRequest, error) bool) {
		for i := range n {
			if !yield(&kvv1.ImportRequest{Key: fmt.Sprintf("square/%d", i), Value: fmt.Append(nil, i*i)}, nil) {
				return
			}
		}
	}
}

// ask yields keys, until the call is over.
func ask(keys ...string) func(context.Context) iter.Seq2[*kvv1.LookupRequest, error] {
	return func(context.Context) iter.Seq2[*kvv1.LookupRequest, error] {
		return func(yield func(*kvv1.LookupRequest, error) bool) {
			for _, key := range keys {
				if !yield(&kvv1.LookupRequest{Key: key}, nil) {
					return
				}
			}
		}
	}
}
