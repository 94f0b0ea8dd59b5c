package logs_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/logs"
)

var errAway = errors.New("the logger is away")

func TestBuffer_KeepsOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []string

		b := logs.NewBuffer(func(_ context.Context, entries []*loggerv1.Entry) error {
			for _, e := range entries {
				got = append(got, e.GetMessage())
			}

			return nil
		})
		defer b.Close()

		const n = 1000
		for i := range n {
			b.Log("info", strconv.Itoa(i), nil)
		}

		synctest.Wait()

		for i, message := range got {
			if message != strconv.Itoa(i) {
				t.Fatalf("entry %d is %q", i, message)
			}
		}

		if sent, dropped := b.Counts(); len(got) != n || sent != n || dropped != 0 {
			t.Errorf("got %d entries, counts %d and %d", len(got), sent, dropped)
		}
	})
}

// TestBuffer_NeverBlocks logs ten times what the buffer holds while nobody takes
// it: no time passes, everything is counted, and what comes later arrives.
func TestBuffer_NeverBlocks(t *testing.T) {
	t.Parallel()

	for name, away := range map[string]logs.Send{
		"refuses": func(context.Context, []*loggerv1.Entry) error { return errAway },
		"hangs":   func(ctx context.Context, _ []*loggerv1.Entry) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				back := make(chan struct{})
				b := logs.NewBuffer(func(ctx context.Context, entries []*loggerv1.Entry) error {
					select {
					case <-back:
						return nil
					default:
						return away(ctx, entries)
					}
				})
				defer b.Close()

				const n = 40_000

				start := time.Now()
				for range n {
					b.Log("info", "lost, or late", nil)
				}

				if d := time.Since(start); d != 0 {
					t.Errorf("logging took %v", d)
				}

				if _, dropped := b.Counts(); dropped < n*8/10 {
					t.Errorf("%d entries were dropped, want most of %d", dropped, n)
				}

				close(back)
				time.Sleep(time.Minute)
				b.Log("info", "arrives", nil)
				synctest.Wait()

				sent, dropped := b.Counts()
				if sent == 0 || sent+dropped != n+1 {
					t.Errorf("%d entries were passed on and %d dropped, of %d", sent, dropped, n+1)
				}
			})
		})
	}
}

func TestBuffer_CloseEndsSend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := logs.NewBuffer(func(ctx context.Context, _ []*loggerv1.Entry) error { <-ctx.Done(); return ctx.Err() })
		b.Log("info", "never arrives", nil)
		synctest.Wait()

		start := time.Now()
		b.Close()

		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
	})
}
