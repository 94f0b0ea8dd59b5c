package certificates_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// An editor that puts a byte order mark before a key or a certificate makes a file that no reader of PEM takes, and nobody sees why.
func TestFilesWithAByteOrderMark(t *testing.T) {
	t.Parallel()

	const says = "it begins with a byte order mark"

	home := t.TempDir()
	authorityDir, dir := filepath.Join(home, "ca"), filepath.Join(home, "logger")

	authority := newAuthority(t, connectplugin.AuthorityConfig{Dir: authorityDir})
	if err := authority.WriteCredentials(dir, "logger", "localhost"); err != nil {
		t.Fatal(err)
	}

	load := func() error {
		_, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})

		return err
	}
	loadAuthority := func() error {
		_, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: authorityDir})

		return err
	}
	write := func() error { return authority.WriteCredentials(dir, "logger", "localhost") }

	for _, test := range []struct {
		path, mark string
		do         func() error
	}{
		{filepath.Join(dir, "tls.crt"), "\xef\xbb\xbf", load},
		{filepath.Join(dir, "tls.key"), "\xef\xbb\xbf", load},
		{filepath.Join(dir, "tls.key"), "\xff\xfe", load},
		{filepath.Join(dir, "ca.crt"), "\xff\xfe", load},
		{filepath.Join(dir, "tls.key"), "\xef\xbb\xbf", write},
		{filepath.Join(authorityDir, "authority.key"), "\xef\xbb\xbf", loadAuthority},
		{filepath.Join(authorityDir, "authority.crt"), "\xfe\xff", loadAuthority},
	} {
		held := readPEM(t, test.path)

		text := string(held)
		if test.mark != "\xef\xbb\xbf" {
			text = strings.Join(strings.Split(text, ""), "\x00") // UTF-16, near enough
		}

		if err := os.WriteFile(test.path, []byte(test.mark+text), 0o600); err != nil {
			t.Fatal(err)
		}

		err := test.do()
		if err == nil || !strings.Contains(err.Error(), test.path) || !strings.Contains(err.Error(), says) ||
			strings.Contains(err.Error(), "lost") || strings.Contains(err.Error(), "write the credentials again") {
			t.Errorf("%s with %x: %v", test.path, test.mark, err)
		}

		if err := os.WriteFile(test.path, held, 0o600); err != nil {
			t.Fatal(err)
		}

		if err := test.do(); err != nil {
			t.Errorf("%s without it: %v", test.path, err)
		}
	}
}
