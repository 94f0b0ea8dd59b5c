package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/policy"
)

func set(names ...string) policy.Set { return policy.NewSet(names) }

func TestSet(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		set       policy.Set
		has, not  string
		list      []string
		namesAny  bool
		withAB    []string
		withEvery []string
	}{
		"zero":       {policy.Set{}, "", "a", nil, false, nil, nil},
		"empty":      {set(), "", "a", nil, false, nil, nil},
		"names":      {set("b", "a", "b"), "a", "c", []string{"a", "b"}, true, []string{"a", "b"}, []string{"a", "b"}},
		"every":      {set("*"), "anything", "", []string{"*"}, false, []string{"a", "b"}, []string{"*"}},
		"every, too": {set("a", "*"), "b", "", []string{"*"}, true, []string{"a", "b"}, []string{"*"}},
		"Everything": {policy.Everything(), "a", "", []string{"*"}, false, []string{"a", "b"}, []string{"*"}},
		"other":      {set("b", "c"), "c", "a", []string{"b", "c"}, true, []string{"b"}, []string{"b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.has != "" && !tt.set.Has(tt.has) || tt.not != "" && tt.set.Has(tt.not) {
				t.Errorf("has %q: %t, has %q: %t", tt.has, tt.set.Has(tt.has), tt.not, tt.set.Has(tt.not))
			}
			if got := tt.set.List(); !slices.Equal(got, tt.list) {
				t.Errorf("list %q, want %q", got, tt.list)
			}
			if tt.set.NamesAny() != tt.namesAny {
				t.Errorf("names any: %t", tt.set.NamesAny())
			}
			if got := tt.set.Intersect(set("a", "b")); !slices.Equal(got, tt.withAB) {
				t.Errorf("with a and b: %q, want %q", got, tt.withAB)
			}
			if got := tt.set.Intersect(policy.Everything()); !slices.Equal(got, tt.withEvery) {
				t.Errorf("with everything: %q, want %q", got, tt.withEvery)
			}
		})
	}
}

// A plugin has one name: that for which policy is written.
func TestBook_KnowsAPluginByOneName(t *testing.T) {
	t.Parallel()
	byName, byCert, byDefault := &policy.Rules{}, &policy.Rules{}, &policy.Rules{}
	b := &policy.Book{
		Plugins: map[string]*policy.Rules{"named": byName, "both": byName},
		Holders: map[string]*policy.Rules{"spiffe://x/y": byCert, "held": byCert, "both": byName}, Default: byDefault,
	}
	for name, tt := range map[string]struct {
		book         *policy.Book
		selfID, cert string
		want         policy.Match
	}{
		"self id":             {b, "named", "", policy.Match{Name: "named", Rules: byName}},
		"self id, known cert": {b, "named", "spiffe://x/y", policy.Match{Name: "named", Rules: byName}},
		"certificate":         {b, "other", "spiffe://x/y", policy.Match{Name: "spiffe://x/y", Rules: byCert, ByCertificate: true}},
		"neither":             {b, "other", "spiffe://x/z", policy.Match{Name: "other", Rules: byDefault}},
		"no certificate":      {b, "other", "", policy.Match{Name: "other", Rules: byDefault}},
		"nothing by default":  {&policy.Book{}, "other", "", policy.Match{Name: "other"}},
		"an empty name is no": {&policy.Book{Holders: map[string]*policy.Rules{"": byCert}}, "other", "", policy.Match{Name: "other"}},
		"a name of both":      {b, "both", "both", policy.Match{Name: "both", Rules: byName, ByCertificate: true}},
		"claimed alone":       {b, "both", "", policy.Match{Name: "both", Rules: byName}},
		"shown alone":         {b, "other", "both", policy.Match{Name: "both", Rules: byName, ByCertificate: true}},
		"a holder's, claimed": {b, "held", "", policy.Match{Name: "held"}},
		"a holder's, another": {b, "held", "spiffe://x/y", policy.Match{Name: "spiffe://x/y", Rules: byCert, ByCertificate: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tt.book.Match(tt.selfID, tt.cert); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A right is what was declared and is allowed; capabilities and the host's plugins
// are not declared.
func TestBook_EffectiveRights(t *testing.T) {
	t.Parallel()
	b := &policy.Book{Plugins: map[string]*policy.Rules{"p": {
		Provides: set("a", "b"), Requires: set("*"), Capabilities: set("log"), HostPlugins: set("kv"),
	}}}
	s := policy.Subject{SelfID: "p", Provides: set("b", "c"), Requires: set("r")}
	want := policy.Rights{Provides: []string{"b"}, Requires: []string{"r"}, Capabilities: []string{"log"}}
	if got := b.Rights(s); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("rights %v, want %v", got, want)
	}
	for question, tt := range map[string]struct{ got, want bool }{
		"provides b": {b.MayProvide(s, "b"), true},
		"provides a": {b.MayProvide(s, "a"), false},
		"provides c": {b.MayProvide(s, "c"), false},
		"requires r": {b.MayRequire(s, "r"), true},
		"requires a": {b.MayRequire(s, "a"), false},
		"uses log":   {b.MayUse(s, "log"), true},
		"uses kv":    {b.MayUse(s, "kv"), false},
		"calls kv":   {b.MayCallHostPlugin(s, "kv"), true},
		"calls log":  {b.MayCallHostPlugin(s, "log"), false},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %t", question, tt.got)
		}
	}
	narrowed := s
	narrowed.Within = new(policy.Set)
	if r := b.Rights(narrowed); b.MayProvide(narrowed, "b") || len(r.Provides) != 0 || !b.MayRequire(narrowed, "r") {
		t.Errorf("narrowed to nothing: %v", r)
	}
	left := set("b", "c", "z")
	narrowed.Within = &left
	if r := b.Rights(narrowed); !b.MayProvide(narrowed, "b") || b.MayProvide(narrowed, "c") || b.MayProvide(narrowed, "z") || !slices.Equal(r.Provides, []string{"b"}) {
		t.Errorf("narrowed: %v", r)
	}
	stranger := policy.Subject{SelfID: "q", Provides: policy.Everything(), Requires: policy.Everything()}
	if r := b.Rights(stranger); len(r.Provides)+len(r.Requires)+len(r.Capabilities) != 0 || b.MayProvide(stranger, "a") ||
		b.MayRequire(stranger, "a") || b.MayUse(stranger, "log") || b.MayCallHostPlugin(stranger, "kv") {
		t.Errorf("a plugin that policy does not know has rights: %v", r)
	}
}

func TestRules_Certificates(t *testing.T) {
	t.Parallel()
	key, other := certs.Pin{1}, certs.Pin{2}
	for name, tt := range map[string]struct {
		rules    policy.Rules
		identity string
		key      certs.Pin
		proven   bool
		err      error
	}{
		"says nothing":      {policy.Rules{}, "x", key, false, nil},
		"named":             {policy.Rules{Certificates: set("x", "y")}, "x", other, true, nil},
		"another":           {policy.Rules{Certificates: set("y")}, "x", key, false, policy.ErrNotNamed},
		"none":              {policy.Rules{Certificates: set("y")}, "", certs.Pin{}, false, policy.ErrNotNamed},
		"every name alone":  {policy.Rules{Certificates: set("*")}, "x", key, false, nil},
		"pinned":            {policy.Rules{Pins: []certs.Pin{other, key}}, "x", key, true, nil},
		"another key":       {policy.Rules{Pins: []certs.Pin{other}}, "x", key, false, policy.ErrNotPinned},
		"named, wrong key":  {policy.Rules{Certificates: set("x"), Pins: []certs.Pin{other}}, "x", key, false, policy.ErrNotPinned},
		"pinned, not named": {policy.Rules{Certificates: set("y"), Pins: []certs.Pin{key}}, "x", key, false, policy.ErrNotNamed},
		"both":              {policy.Rules{Certificates: set("x"), Pins: []certs.Pin{key}}, "x", key, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proven, err := tt.rules.CheckCertificate(tt.identity, tt.key)
			if proven != tt.proven || !errors.Is(err, tt.err) {
				t.Errorf("proven %t, %v; want %t, %v", proven, err, tt.proven, tt.err)
			}
		})
	}
}

func TestRules_SelfIDs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		allowed policy.Set
		ok      bool
	}{"none": {set(), true}, "named": {set("a", "x"), true}, "every": {set("*"), true}, "another": {set("a"), false}} {
		rules := policy.Rules{SelfIDs: tt.allowed}
		if err := rules.CheckSelfID("x"); (err == nil) != tt.ok || err != nil && !errors.Is(err, policy.ErrNotSelfID) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A book names the certificates of all its rules, and no other.
func TestBook_NamesCertificates(t *testing.T) {
	t.Parallel()
	key, other := certs.Pin{1}, certs.Pin{2}
	b := &policy.Book{
		Plugins: map[string]*policy.Rules{"p": {Certificates: set("a", "*")}, "q": {Pins: []certs.Pin{key}}},
		Holders: map[string]*policy.Rules{"b": {}}, Default: &policy.Rules{Certificates: set("c")},
	}
	b.Note()
	for identity, want := range map[string]bool{"a": true, "b": true, "c": true, "p": false, "": false, "*": false} {
		if b.Names(identity, other) != want {
			t.Errorf("names %q: %t", identity, !want)
		}
	}
	if !b.Names("", key) || !b.Names("x", key) || (&policy.Book{}).Names("", certs.Pin{}) {
		t.Error("keys are mixed up")
	}
	n := 0
	b.Certificates(func(identity string, pin certs.Pin) {
		if n++; !b.Names(identity, pin) {
			t.Errorf("%q, %v", identity, pin)
		}
	})
	if n != 4 {
		t.Errorf("%d certificates", n)
	}
}

func TestRules_SameAddress(t *testing.T) {
	t.Parallel()
	a, b := &policy.Rules{Endpoint: "https://a"}, &policy.Rules{Endpoint: "https://b"}
	own := &policy.Rules{Endpoint: "https://a", AllowOwnAddress: true}
	if !a.SameAddress(&policy.Rules{Endpoint: "https://a", MaxInstances: 1}) || a.SameAddress(b) || a.SameAddress(own) {
		t.Error("what is said about the address is compared wrongly")
	}
}

func TestRules_PrintNoSecret(t *testing.T) {
	t.Parallel()
	r := &policy.Rules{Secret: policy.Secret("sesame-sesame-sesame")}
	text, err := r.Secret.MarshalText()
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v %s %x", *r, *r, *r, r.Secret, r.Secret), r.Secret.LogValue().String(), string(text)} {
		if strings.Contains(printed, "sesame") || !strings.Contains(printed, "[redacted]") || err != nil {
			t.Errorf("printed %q, %v", printed, err)
		}
	}
}

// FuzzBook compares with lists that are searched one by one: a right is never more
// than what was declared and what is allowed, and never less.
func FuzzBook(f *testing.F) {
	f.Add("a b", "b c", "b")
	f.Add("*", "a", "a")
	f.Add("a", "*", "b")
	f.Add("* a", "", "*")
	f.Fuzz(func(t *testing.T, allowed, declared, name string) {
		allows, declares := strings.Fields(allowed), strings.Fields(declared)
		b := &policy.Book{Default: &policy.Rules{Provides: set(allows...), Requires: set(allows...)}}
		s := policy.Subject{SelfID: "p", Provides: set(declares...), Requires: set(declares...)}
		want := lists(allows, name) && lists(declares, name)
		if b.MayProvide(s, name) != want || b.MayRequire(s, name) != want {
			t.Errorf("allowed %q, declared %q: %q gives %t and %t, want %t", allows, declares, name,
				b.MayProvide(s, name), b.MayRequire(s, name), want)
		}
		if listed := lists(b.Rights(s).Provides, name); name != "" && name != policy.Any && listed != want {
			t.Errorf("allowed %q, declared %q: %q is listed: %t, want %t", allows, declares, name, listed, want)
		}
	})
}

func lists(names []string, name string) bool {
	return slices.Contains(names, name) || slices.Contains(names, policy.Any)
}

// A key that others are pinned by tells nobody apart, and other demands of a certificate are others whichever they are.
func TestWhoseCertificate(t *testing.T) {
	t.Parallel()
	key := certs.Pin{1}
	own, others := &policy.Rules{Pins: []certs.Pin{{2}}}, &policy.Rules{Pins: []certs.Pin{key}}
	book := &policy.Book{Plugins: map[string]*policy.Rules{"own": own, "others": others}}
	book.Distinguish()
	for name, want := range map[string]bool{"own": true, "others": false} {
		if got := book.PinnedByOthers(policy.Subject{SelfID: name}, key); got != want {
			t.Errorf("%s: pinned by others: %t", name, got)
		}
	}
	if book.PinnedByOthers(policy.Subject{SelfID: "own"}, certs.Pin{3}) {
		t.Error("a key of nobody is pinned by others")
	}
	named := func(names ...string) *policy.Rules { return &policy.Rules{Certificates: policy.NewSet(names)} }
	for _, tt := range []struct {
		a, b *policy.Rules
		same bool
	}{
		{own, own, true}, {own, others, false}, {named("a", "b"), named("b", "a"), true}, {named("a"), named("b"), false}, {named("a"), named(), false},
	} {
		if tt.a.SameCertificates(tt.b) != tt.same {
			t.Errorf("%v and %v: want the same: %t", tt.a, tt.b, tt.same)
		}
	}
}
