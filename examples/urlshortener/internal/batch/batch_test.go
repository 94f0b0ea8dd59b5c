package batch_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	shortenerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1/shortenerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/batch"
)

var errCall = errors.New("no answer")

// fake answers with what its functions return; an empty answer is an error.
type fake struct {
	shortenerv1connect.ShortenerServiceClient

	code, url func(string) string
}

func (f fake) Shorten(_ context.Context, req *shortenerv1.ShortenRequest) (*shortenerv1.ShortenResponse, error) {
	if code := f.code(req.GetUrl()); code != "" {
		return &shortenerv1.ShortenResponse{Code: code}, nil
	}

	return nil, errCall
}

func (f fake) Resolve(_ context.Context, req *shortenerv1.ResolveRequest) (*shortenerv1.ResolveResponse, error) {
	if url := f.url(req.GetCode()); url != "" {
		return &shortenerv1.ResolveResponse{Url: url}, nil
	}

	return nil, errCall
}

func TestBatch_CountsWhatIsWrong(t *testing.T) {
	t.Parallel()

	urls := []string{"https://a.example/", "https://b.example/", "https://a.example/", "https://c.example/"}
	code := func(url string) string { return "code-" + url }
	url := func(code string) string { return strings.TrimPrefix(code, "code-") }

	var calls atomic.Int64

	for name, tt := range map[string]struct {
		code, url        func(string) string
		shorten, resolve int // failures
	}{
		"nothing":         {code, url, 0, 0},
		"no codes":        {func(string) string { return "" }, url, 4, 4},
		"no URLs":         {code, func(string) string { return "" }, 0, 4},
		"another case":    {code, func(c string) string { return strings.ToUpper(url(c)) }, 0, 4},
		"a byte too many": {code, func(c string) string { return url(c) + "/" }, 0, 4},
		"a byte too few":  {code, func(c string) string { return strings.TrimSuffix(url(c), "/") }, 0, 4},
		"shared code":     {func(string) string { return "same" }, func(string) string { return urls[0] }, 3, 2},
		"two codes": {
			func(u string) string { return strconv.FormatInt(calls.Add(1), 10) + " " + u },
			func(c string) string { _, u, _ := strings.Cut(c, " "); return u }, 1, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			client := fake{code: tt.code, url: tt.url}
			codes, shorten := batch.Shorten(t.Context(), client, urls, func(int) {})
			resolve := batch.Resolve(t.Context(), client, codes, urls, func(int) {})

			if shorten.Failures != tt.shorten || shorten.Calls() != len(urls) || (shorten.Err() != nil) != (tt.shorten > 0) {
				t.Errorf("shorten: %d failures in %d calls, want %d: %v", shorten.Failures, shorten.Calls(), tt.shorten, shorten.Err())
			}

			if resolve.Failures != tt.resolve || resolve.Calls() != len(urls) || (resolve.Err() != nil) != (tt.resolve > 0) {
				t.Errorf("resolve: %d failures in %d calls, want %d: %v", resolve.Failures, resolve.Calls(), tt.resolve, resolve.Err())
			}
		})
	}
}
