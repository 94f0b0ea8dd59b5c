package projecttest_test

import (
	"slices"
	"strings"
	"testing"
)

const roomTable = "Some words.\n" +
	"\n" +
	"| Room | Files | May name | Owns |\n" +
	"|------|-------|----------|------|\n" +
	"| words | `errors`, `plugin.go` | — | |\n" +
	"| serving | `route`, `x_special` | words | calls |\n" +
	"| services | `x`, `router` | words, serving | |\n" +
	"| plugin | `plugin` | words | |\n" +
	"| config | `config` | words, services (types only) | |\n" +
	"| platform | `launch` (to come) | words, serving | |\n" +
	"\n" +
	"| Lock | Room |\n" +
	"|------|------|\n" +
	"| mu | nowhere |\n"

func TestParseRooms(t *testing.T) {
	t.Parallel()
	rooms, err := parseRooms(roomTable)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"errors.go": "words", "errors_x.go": "words", "errorsx.go": "", "plugin.go": "words", "plugin_server.go": "plugin",
		"route.go": "serving", "router.go": "services", "router_pools.go": "services", "routes.go": "", "x.go": "services",
		"x_y.go": "services", "x_special.go": "serving", "x_special_y.go": "serving", "launch_it.go": "platform",
	} {
		got := ""
		if r := roomOf(rooms, file); r != nil {
			got = r.name
		}
		if got != want {
			t.Errorf("%s is in room %q, want %q", file, got, want)
		}
	}
	for name, text := range map[string]string{
		"no table":     "words\n",
		"no room":      "| Room | Files | May name |\n|---|---|---|\n| a | `a` | b |\n",
		"the room":     "| Room | Files | May name |\n|---|---|---|\n| a | `a` | a |\n",
		"no columns":   "| Room | Files |\n|---|---|\n| a | `a` |\n",
		"another one":  "| Lock | Files | May name |\n|---|---|---|\n| a | `a` | |\n",
		"types, typed": "| Room | Files | May name |\n|---|---|---|\n| a | `a` | |\n| b | `b` | a (types) |\n",
	} {
		if rooms, err := parseRooms(text); err == nil {
			t.Errorf("%s: parsed as %v", name, rooms)
		}
	}
}

func TestRoomProblems(t *testing.T) {
	t.Parallel()
	rooms, err := parseRooms(roomTable)
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"errors.go", "plugin.go", "route.go", "x.go", "router.go", "plugin_server.go", "config.go"}
	good := []naming{
		{from: "route.go", namedBy: "lookup", to: "errors.go", name: "errTaken"},
		{from: "x.go", namedBy: "X", to: "errors.go", name: "errTaken"},
		{from: "x.go", namedBy: "X", to: "route.go", name: "route"},
		{from: "x.go", namedBy: "X", to: "router.go", name: "inTheSameRoom"},
		{from: "plugin_server.go", namedBy: "serve", to: "plugin.go", name: "Plugin", isType: true},
		{from: "config.go", namedBy: "Config", to: "x.go", name: "X", isType: true},
		{from: "config.go", namedBy: "Config", to: "errors.go", name: "errTaken"},
	}
	for name, tt := range map[string]struct {
		file  string // one more
		lacks string // a file that is not there, nor what it names
		more  []naming
		want  []string
	}{
		"as it should be": {},
		"a forbidden arrow": {
			more: []naming{{from: "route.go", namedBy: "route.serve", to: "x.go", name: "X.special"}},
			want: []string{"serving may not name services: route.go:route.serve → x.go:X.special"},
		},
		"not only types": {
			more: []naming{{from: "config.go", namedBy: "Config.validate", to: "x.go", name: "field"}},
			want: []string{"config may not name services: config.go:Config.validate → x.go:field"},
		},
		"in no room":   {file: "stray.go", want: []string{"stray.go is in no room"}},
		"in a new one": {file: "launch.go"},
		"an empty room": {
			lacks: "config.go",
			want:  []string{"config has no file", "nothing uses the arrow: config names services", "nothing uses the arrow: config names words"},
		},
		"of a new one": {
			file: "launch.go", more: []naming{{from: "launch.go", namedBy: "Launch", to: "x.go", name: "X"}},
			want: []string{"platform may not name services: launch.go:Launch → x.go:X"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := slices.DeleteFunc(append(slices.Clone(files), tt.file), func(f string) bool { return f == "" || f == tt.lacks })
			namings := slices.DeleteFunc(append(slices.Clone(good), tt.more...), func(n naming) bool { return n.from == tt.lacks })
			if got := roomProblems(rooms, is, namings); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What a table allows does not join the two sides of the wire.
func TestRoomProblems_BothSidesOfTheWire(t *testing.T) {
	t.Parallel()
	rooms, err := parseRooms("| Room | Files | May name |\n|---|---|---|\n| host | `host` | plugin |\n| plugin | `plugin` | host |\n")
	if err != nil {
		t.Fatal(err)
	}
	got := roomProblems(rooms, []string{"host.go", "plugin.go"}, []naming{
		{from: "host.go", namedBy: "a", to: "plugin.go", name: "b"}, {from: "plugin.go", namedBy: "b", to: "host.go", name: "a"},
	})
	if len(got) != 2 || !strings.Contains(got[0], "host.go:a → plugin.go:b") || !strings.Contains(got[1], "plugin.go:b → host.go:a") {
		t.Errorf("got %q", got)
	}
}

func TestNamingsOf(t *testing.T) {
	t.Parallel()
	p := checkTexts(t, map[string]string{
		"a.go": "package p\n\ntype A struct{ field int }\n\nfunc (*A) Method() {}\n\nvar value, other = 1, 2\n\nconst c = 1\n\nfunc f() { f(); _ = c }\n",
		"b.go": "package p\n\ntype B struct {\n\tA\n\n\tn int\n}\n\nfunc (b *B) Use() int {\n\tlocal := b.n\n\tf()\n\tb.Method()\n\treturn local + b.field\n}\n",
		"c.go": "package p\n\nvar first, second = value, func() int { return c }()\n\nfunc g[T any](T) { g(A{field: 1}) }\n",
	})
	var got []string
	for _, n := range namingsOf(p) {
		got = append(got, n.String())
		if n.isType != (n.name == "A") {
			t.Errorf("%s is a type: %t", n, n.isType)
		}
	}
	want := []string{
		"b.go:B → a.go:A", "b.go:B.Use → a.go:A.Method", "b.go:B.Use → a.go:f", "b.go:B.Use → a.go:field",
		"c.go:first → a.go:c", "c.go:first → a.go:value", "c.go:g → a.go:A", "c.go:g → a.go:field",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTableProblems(t *testing.T) {
	t.Parallel()
	good := func() []room {
		var rooms []room
		for _, name := range []string{"words", "tools", "identity", "serving", "config", "services", "host", "platform", "plugin"} {
			rooms = append(rooms, room{name: name, beginnings: []string{name}, mayName: map[string]reach{}})
		}
		return rooms
	}
	files := []string{
		"words.go", "tools.go", "identity.go", "serving.go", "config.go", "services.go", "host.go", "platform.go", "plugin_x.go",
	}
	for name, tt := range map[string]struct {
		edit func([]room) []room
		want string
	}{
		"as it should be":           {func(r []room) []room { return r }, ""},
		"a beginning without files": {func(r []room) []room { r[0].beginnings = append(r[0].beginnings, "log"); return r }, "no file begins with log"},
		"a circle": {func(r []room) []room {
			r[2].mayName["serving"], r[3].mayName["identity"] = everything, everything
			return r
		}, "lead back"},
		"a circle of types": {func(r []room) []room {
			r[4].mayName["services"], r[5].mayName["config"] = typesOnly, everything
			return r
		}, ""},
		"a room of no side":   {func(r []room) []room { r[8].name = "peers"; return r }, "peers is on no side"},
		"a room that is gone": {func(r []room) []room { return r[:8] }, "has no room plugin"},
	} {
		got := strings.Join(tableProblems(tt.edit(good()), files), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
