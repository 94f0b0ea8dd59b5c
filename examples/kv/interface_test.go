//go:build unix

package kv_test

import (
	"context"
	"iter"

	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1delegate"
)

// KVService is the generated interface, without its comments, as the documents show it.
//
//docs:region interface
type KVService interface {
	Get(ctx context.Context, key string) (*kvv1.GetResponse, error)
	Put(ctx context.Context, key string, value []byte) error
	Import(ctx context.Context, requests iter.Seq2[*kvv1.ImportRequest, error]) (*kvv1.ImportResponse, error)
	List(ctx context.Context, prefix string) iter.Seq2[*kvv1.ListResponse, error]
	Lookup(ctx context.Context, requests func(context.Context) iter.Seq2[*kvv1.LookupRequest, error]) iter.Seq2[*kvv1.LookupResponse, error]
}

//docs:end

// They are the same.
var (
	_ KVService              = kvv1delegate.KVService(nil)
	_ kvv1delegate.KVService = KVService(nil)
)
