package main

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"connectrpc.com/connect"

	shortenerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1"
	storagev1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/storage/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/logs"
)

const (
	maxURL  = 8 << 10
	minCode = 8
	// maxCode bounds how far a code grows that another URL has already.
	maxCode = 20
)

var errStorage = errors.New("storage is not available")

// shortenerService gives URLs codes, which it keeps in the service "storage".
type shortenerService struct {
	links

	log *logs.Buffer
}

func newShortener() *shortenerService {
	s := &shortenerService{links: links{connected: make(chan struct{})}}
	s.log = logs.NewBuffer(s.send)

	return s
}

// Close stops logging.
func (s *shortenerService) Close() { s.log.Close() }

// Shorten returns the code of a URL: the first letters of its digest, so that the
// same URL gets the same code, and more of them where another URL has that code.
func (s *shortenerService) Shorten(ctx context.Context, req *shortenerv1.ShortenRequest) (*shortenerv1.ShortenResponse, error) {
	long := req.GetUrl()
	if err := checkURL(long); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}

	if err := s.wait(ctx); err != nil {
		return nil, err
	}

	digest := digestOf(long)
	for n := minCode; n <= maxCode; n++ {
		code := digest[:n]

		resp, err := s.storage.Put(ctx, &storagev1.PutRequest{Key: code, Value: []byte(long)})
		if err != nil {
			return nil, s.failed("shorten", err)
		}

		if string(resp.GetValue()) == long {
			s.log.Log("info", "shortened", map[string]string{"code": code})

			return &shortenerv1.ShortenResponse{Code: code}, nil
		}
	}

	return nil, connect.NewError(connect.CodeInternal, errors.New("no code is free"))
}

// Resolve returns the URL of a code.
func (s *shortenerService) Resolve(ctx context.Context, req *shortenerv1.ResolveRequest) (*shortenerv1.ResolveResponse, error) {
	if n := len(req.GetCode()); n < minCode || n > maxCode {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("code: has %d characters, no code has", n))
	}

	if err := s.wait(ctx); err != nil {
		return nil, err
	}

	resp, err := s.storage.Get(ctx, &storagev1.GetRequest{Key: req.GetCode()})
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such code"))
	}

	if err != nil {
		return nil, s.failed("resolve", err)
	}

	s.log.Log("info", "resolved", map[string]string{"code": req.GetCode()})

	return &shortenerv1.ResolveResponse{Url: string(resp.GetValue())}, nil
}

// Status tells how logging goes.
func (s *shortenerService) Status(context.Context, *shortenerv1.StatusRequest) (*shortenerv1.StatusResponse, error) {
	sent, dropped := s.log.Counts()

	return &shortenerv1.StatusResponse{Logged: sent, LogDropped: dropped}, nil
}

// wait waits until the links are there.
func (s *shortenerService) wait(ctx context.Context) error {
	select {
	case <-s.connected:
		return nil
	case <-ctx.Done():
		return connect.NewError(connect.CodeUnavailable, ctx.Err())
	}
}

// failed logs what happened; the caller learns only that something did.
func (s *shortenerService) failed(what string, err error) error {
	s.log.Log("error", what+" failed", map[string]string{"error": err.Error()})

	return connect.NewError(connect.CodeUnavailable, errStorage)
}

// checkURL accepts what can be followed. The URL is kept as it was given.
func checkURL(s string) error {
	if len(s) > maxURL {
		return fmt.Errorf("url: has %d bytes, at most %d are allowed", len(s), maxURL)
	}

	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("url: must be absolute, and http or https, for example https://example.com/")
	}

	return nil
}

// digestOf returns maxCode letters and digits that depend on every byte of s.
func digestOf(s string) string {
	sum := sha256.Sum256([]byte(s))

	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:maxCode]
}
