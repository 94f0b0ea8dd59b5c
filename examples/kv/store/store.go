// Package store implements the service of the example.
package store

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"connectrpc.com/connect"

	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
)

var errNoKey = errors.New("there is no such key")

// Store keeps values in memory. It is safe for concurrent use.
type Store struct {
	mu     sync.Mutex
	values map[string][]byte
}

var _ kvv1connect.KVServiceHandler = (*Store)(nil)

// New returns an empty store.
func New() *Store { return &Store{values: map[string][]byte{}} }

// Get returns the value of a key, or an error with CodeNotFound.
func (s *Store) Get(_ context.Context, req *kvv1.GetRequest) (*kvv1.GetResponse, error) {
	value, ok := s.get(req.GetKey())
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, errNoKey)
	}

	return &kvv1.GetResponse{Value: value}, nil
}

// Put stores a value.
func (s *Store) Put(_ context.Context, req *kvv1.PutRequest) (*kvv1.PutResponse, error) {
	s.put(req.GetKey(), req.GetValue())

	return &kvv1.PutResponse{}, nil
}

// Import stores what is streamed.
func (s *Store) Import(_ context.Context, in *connect.ClientStream[kvv1.ImportRequest]) (*kvv1.ImportResponse, error) {
	res := &kvv1.ImportResponse{}

	for in.Receive() {
		s.put(in.Msg().GetKey(), in.Msg().GetValue())

		res.Count++
	}

	return res, in.Err()
}

// List streams the keys with a beginning.
func (s *Store) List(_ context.Context, req *kvv1.ListRequest, out *connect.ServerStream[kvv1.ListResponse]) error {
	for _, key := range s.keys() {
		if !strings.HasPrefix(key, req.GetPrefix()) {
			continue
		}

		if err := out.Send(&kvv1.ListResponse{Key: key}); err != nil {
			return err
		}
	}

	return nil
}

// Lookup answers each key with its value.
func (s *Store) Lookup(_ context.Context, stream *connect.BidiStream[kvv1.LookupRequest, kvv1.LookupResponse]) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}

		if err != nil {
			return err
		}

		res := &kvv1.LookupResponse{Key: req.GetKey()}
		if value, ok := s.get(req.GetKey()); ok {
			res.Value = append([]byte{}, value...)
		}

		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

func (s *Store) get(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.values[key]

	return value, ok
}

func (s *Store) put(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
}

func (s *Store) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return slices.Sorted(maps.Keys(s.values))
}
