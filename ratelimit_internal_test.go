package connectplugin

import (
	"reflect"
	"testing"
)

func TestAddressKey(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"192.0.2.1:1234":                     "192.0.2.1",
		"192.0.2.1":                          "192.0.2.1",
		"[::ffff:192.0.2.1]:80":              "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80":          "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:443":          "2001:db8:1:2::/64",
		"2001:db8:1:3::1":                    "2001:db8:1:3::/64",
		"[fe80::1%eth0]:80":                  "fe80::/64",
		"[::1]:80":                           "::/64",
		"":                                   "local",
		"@":                                  "local",
		"pipe":                               "local",
		"/run/the-peer-chose-this.sock":      "local",
		"localhost:80":                       "local",
		"192.0.2.1:port":                     "local",
		"256.0.2.1:80":                       "local",
		"192.0.2.1, 198.51.100.1":            "local",
		"[2001:db8:1:2:3:4:5:6%25eth0]:port": "local",
	}
	for addr, want := range tests {
		if got := addressKey(addr); got != want {
			t.Errorf("%q: got %q, want %q", addr, got, want)
		}
	}
}

// A field without a default would allow nothing.
func TestLimits_EveryFieldHasADefault(t *testing.T) {
	t.Parallel()
	v := reflect.ValueOf(Limits{}.withDefaults())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("Limits.%s has none", v.Type().Field(i).Name)
		}
	}
}
