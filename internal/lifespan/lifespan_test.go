package lifespan_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/lifespan"
)

func TestLeft(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 400e6, time.UTC)
	for name, tt := range map[string]struct {
		life, ahead time.Duration // of what is asked for; how far the other clock is ahead
		date        string        // "" is that of the other clock
		least, most time.Duration // of the answer
	}{
		"no difference":                {life: time.Hour, least: time.Hour, most: time.Hour},
		"a little of one":              {life: time.Hour, ahead: 100 * time.Millisecond, least: time.Hour, most: time.Hour + 100*time.Millisecond},
		"this clock is behind":         {life: time.Hour, ahead: time.Hour, least: time.Hour - time.Second, most: time.Hour},
		"far behind":                   {life: time.Minute, ahead: 1000 * time.Hour, least: time.Minute - time.Second, most: time.Minute},
		"ahead":                        {life: time.Hour, ahead: -59 * time.Minute, least: time.Hour - time.Second, most: time.Hour},
		"ahead for more than it lives": {life: time.Hour, ahead: -2 * time.Hour, least: time.Hour - time.Second, most: time.Hour},
		"the shortest life":            {life: time.Second, ahead: time.Hour, least: time.Second / 2, most: time.Second},
		"no Date":                      {life: time.Hour, ahead: time.Minute, date: "none", least: time.Hour + time.Minute, most: time.Hour + time.Minute},
		"a Date after the end":         {life: time.Hour, date: "Mon, 30 Nov 2026 14:00:00 GMT", least: time.Hour, most: time.Hour},
	} {
		date := tt.date
		if date == "" {
			date = now.Add(tt.ahead).Format(http.TimeFormat)
		}
		got := lifespan.Left(now.Add(tt.ahead+tt.life), http.Header{"Date": {date}}, now)
		if got < tt.least || got > tt.most {
			t.Errorf("%s: %s, want %s to %s", name, got, tt.least, tt.most)
		}
	}
	if got := lifespan.Left(now.Add(time.Minute), nil, now); got != time.Minute {
		t.Errorf("without a head: %s", got)
	}
}
