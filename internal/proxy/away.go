package proxy

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// awayEvery is how long what a provider says when it leaves is counted once it was in the log.
const awayEvery = 10 * time.Second

// logAway puts what a provider says when it leaves into the log, once in a while: it may leave
// again and again.
func (p *Provider) logAway(away *h2.GoAwayError) {
	more, due := p.awayDue(time.Now())
	if !due {
		return
	}
	log := p.cfg.Logger.Info
	if away.Code != http2.ErrCodeNo {
		log = p.cfg.Logger.Warn
	}
	text := strings.Trim(strconv.QuoteToASCII(away.Text), `"`) // escaped: it is the provider's
	said := []any{"endpoint", cmp.Or(p.cfg.Name, p.authority), "code", away.Code.String(), "text", text}
	if more > 0 {
		said = append(said, "not_logged", more)
	}
	log("a provider ends a connection", said...)
}

// awayDue reports whether the log has room for another departure, and how many it had none for.
func (p *Provider) awayDue(now time.Time) (more int, due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.lines
	if !l.said.IsZero() && now.Sub(l.said) < awayEvery {
		l.unsaid++
		return 0, false
	}
	more, l.said, l.unsaid = l.unsaid, now, 0
	return more, true
}
