package certs_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/certs"
)

func TestKnown_ByIdentityElseByKey(t *testing.T) {
	t.Parallel()

	var k certs.Known

	one, two := certs.Pin{1}, certs.Pin{2}
	k.Add("a", one)
	k.Add("", two)

	for name, tt := range map[string]struct {
		identity string
		key      certs.Pin
		want     bool
	}{
		"identity, another key":  {"a", certs.Pin{9}, true},
		"key of an identity":     {"b", one, false},
		"key of a nameless one":  {"b", two, true},
		"nameless with that key": {"", two, true},
		"nameless, another key":  {"", one, false},
	} {
		if got := k.Has(tt.identity, tt.key); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Whoever fills the set gets nobody out of it.
func TestAudit_ATK02_AFullSetHoldsEverybody(t *testing.T) {
	t.Parallel()

	k := certs.Known{Max: 2}
	k.Add("a", certs.Pin{})
	k.Add("b", certs.Pin{})

	if k.Has("c", certs.Pin{}) {
		t.Error("one that was never added")
	}

	k.Add("b", certs.Pin{}) // is there already

	if k.Has("c", certs.Pin{}) {
		t.Error("full before its time")
	}

	k.Add("d", certs.Pin{})

	for _, identity := range []string{"a", "b", "c", "d"} {
		if !k.Has(identity, certs.Pin{}) {
			t.Errorf("%q got out", identity)
		}
	}
}
