package identity_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// secretName is what secrets are called in the source.
var secretName = regexp.MustCompile(`(?i)(token|secret|cookie|proof|digest|hmac|passw|apikey|credential)`)

// ownSecrets are comparisons of a secret with another that the same side holds, of
// which nobody else chose one: a client looks whether its token is still the same.
var ownSecrets = map[string]bool{
	"now.token != stale.token": true, "now.token != id.token": true, "s.grant.token == g.token": true,
}

// Time tells nothing about a secret: wherever one is compared with what came from
// elsewhere, it is by hmac.Equal or subtle.ConstantTimeCompare. Measured times
// prove nothing on a busy machine, so the source is read.
func TestAudit_PROTO43_REG6_AUTH011_SecretsAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	compared := 0
	for _, dir := range []string{".", "internal/tokenstore", "internal/transcript", "internal/certs"} {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch {
				case leaks(n):
					t.Errorf("%s: %s takes a time that depends on a secret", fset.Position(n.Pos()), types.ExprString(n.(ast.Expr)))
				case inConstantTime(n):
					compared++
				}
				return true
			})
		}
	}
	const atLeast = 4 // proofs, digests, the cookie, shared tokens
	if compared < atLeast {
		t.Errorf("found %d comparisons in constant time only: the test reads the wrong files", compared)
	}
}

// leaks reports whether a node compares a secret, byte by byte, with something else.
func leaks(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op != token.EQL && n.Op != token.NEQ || harmless(n.X) || harmless(n.Y) {
			return false
		}
		return isSecret(n.X, n.Y) && !ownSecrets[types.ExprString(n)]
	case *ast.CallExpr:
		switch types.ExprString(n.Fun) {
		case "bytes.Equal", "bytes.Compare", "strings.Compare", "strings.EqualFold", "slices.Equal", "reflect.DeepEqual", "cmp.Compare",
			"bytes.HasPrefix", "maps.Equal":
			return isSecret(n.Args...)
		}
	}
	return false
}

// harmless reports whether an operand is a constant, nil or a number about
// something: comparing with it tells no more than that.
func harmless(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false" || e.Name == "anything"
	case *ast.CallExpr:
		name := types.ExprString(e.Fun)
		return name == "len" || name == "visible" || strings.HasSuffix(name, "Err")
	}
	return false
}

func isSecret(operands ...ast.Expr) bool {
	for _, e := range operands {
		text := strings.ReplaceAll(types.ExprString(e), "tokenstore.", "")
		if secretName.MatchString(text) && !strings.HasPrefix(text, "err") && !strings.HasPrefix(text, "connect.") {
			return true
		}
	}
	return false
}

func inConstantTime(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	name := types.ExprString(call.Fun)
	return name == "hmac.Equal" || name == "subtle.ConstantTimeCompare"
}

// A cookie that is almost right is as wrong as any other, and the documentation
// says that it is no secret.
func TestAudit_PROTO43_TheCookieIsComparedWholeAndIsNoSecret(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Unproven("plugin")))
	ask := func(key, value string) error {
		m := hosttest.OldRequest("plugin")
		m.MagicCookieKey, m.MagicCookieValue = key, value
		_, err := hosttest.HandshakeClient(t, host).Handshake(t.Context(), connect.NewRequest(m))
		return err
	}
	const key, value = connectplugin.DefaultMagicCookieKey, connectplugin.DefaultMagicCookieValue
	if err := ask(key, value); err != nil {
		t.Errorf("the right cookie: %v", err)
	}
	var first string
	for _, c := range [][2]string{
		{"", ""},
		{key, ""},
		{"", value},
		{key, value[:len(value)-1]},
		{key, value + "x"},
		{key, strings.ToUpper(value)},
		{key[:1], value},
		{value, key},
		{key, value + "\x00"},
	} {
		err := ask(c[0], c[1])
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("cookie %q: %v, want invalid_argument", c, err)
		}
		if first == "" && err != nil {
			first = err.Error()
		}
		if err != nil && (err.Error() != first || strings.Contains(err.Error(), value)) {
			t.Errorf("cookie %q: the error %q differs or tells the right one", c, err)
		}
	}
	for _, file := range []string{"config.go", "SECURITY.md", "proto/plugin/v1/handshake.proto"} {
		text, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?is)cookie.{0,300}(no secret|are public)|no secret.{0,100}cookie`).Match(text) {
			t.Errorf("%s does not say that the cookie is no secret", file)
		}
	}
}
