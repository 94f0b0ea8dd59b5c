package page_test

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// chromium is the browser's program; without it the test says so and ends.
func chromium(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium here: apt-get install chromium shows the page in a browser")
	}
	return program
}

// shown opens a page that may change a host with a plugin that is degraded, was refused something, and
// one that was revoked.
func shown(t *testing.T) (*rig, *chrome) {
	t.Helper()
	program := chromium(t)
	r := newRig(t, true)
	r.RevokeSelf("gone")
	victim := r.Enrol(t, "victim", nil)
	if err := victim.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, hostile, nil); err != nil {
		t.Fatal(err)
	}
	_, _ = hosttest.Register(t, victim, "acme.v1.Store", "1.0.0") // which is refused, and says what would allow it
	b := openBrowser(t, program, r.page.Link())
	hosttest.Eventually(t, "the page shows the host", func() bool {
		return b.evaluate(t, `String(document.getElementById("status").textContent === "live" && document.querySelectorAll("#denials code").length > 1 && `+
			`document.querySelectorAll("button").length === 5)`) == "true"
	})
	return r, b
}

// A browser shows the host, and what a plugin says of itself stays text.
func TestBrowser(t *testing.T) {
	t.Parallel()
	r, b := shown(t)
	dom := b.evaluate(t, "document.documentElement.outerHTML")
	b.screenshots(t, "host")
	for _, want := range []string{
		"<title>connectplugin</title>", r.Plugins()[1].RuntimeID, "&lt;img src=x onerror", "MaxIdentities",
		`Policy.Plugins["victim"].Provides = append(…, "acme.v1.Store")`,
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(dom, "<img") || strings.Contains(dom, "owned'</script>") {
		t.Error("what a plugin said became markup")
	}
	if got := b.evaluate(t, "document.title + location.hash"); got != "connectplugin" {
		t.Errorf("title and hash are %q", got)
	}
}

// Whoever has no mouse reaches every control, in the order of the page, sees where the focus is, and
// keeps it while the page changes.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	r, b := shown(t)
	const controls = `[...document.querySelectorAll('a[href],button,[tabindex="0"]')]`
	n, err := strconv.Atoi(b.evaluate(t, "String("+controls+".length)"))
	if err != nil || n < 10 {
		t.Fatalf("%d controls, %v", n, err)
	}
	for i := range n {
		b.tab(t)
		got := b.evaluate(t, `(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
			const seen = (it) => it ? "seen" : "hidden";
			return [`+controls+`.indexOf(e), seen(s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2),
				seen(r.width > 0 && r.right > 0 && r.bottom > 0 && r.top < innerHeight)].join(" "); })()`)
		if want := strconv.Itoa(i) + strings.Repeat(" seen", 2); got != want {
			t.Errorf("Tab %d: control, visible focus, in sight: %s, want %s", i+1, got, want)
		}
	}
	b.evaluate(t, `document.querySelector(".skip").focus()`)
	b.enter(t)
	if got := b.evaluate(t, "document.activeElement.id"); got != "main" {
		t.Errorf("the skip link leads to %q", got)
	}
	const focused = `document.activeElement.getAttribute("aria-label")`
	b.evaluate(t, `document.querySelector('button[aria-label="Revoke victim"]').focus()`)
	later := r.Enrol(t, "later", nil)
	hosttest.Eventually(t, "the page changes", func() bool { return strings.Contains(b.evaluate(t, "document.body.textContent"), later.RuntimeID()) })
	if got := b.evaluate(t, focused); got != "Revoke victim" {
		t.Errorf("the focus went to %q when the page changed", got)
	}
	b.enter(t)
	hosttest.Eventually(t, "the plugin is revoked, and that is said", func() bool {
		return b.evaluate(t, `document.getElementById("status").textContent`) == "revoke victim: done" &&
			strings.Contains(b.evaluate(t, `document.getElementById("revoked").textContent`), "victim")
	})
	if got := b.evaluate(t, `document.activeElement.getAttribute("aria-labelledby")`); got != "c-plugins" {
		t.Errorf("the focus is lost with the row, at %q", got)
	}
}

// A screen reader has a name for everything, landmarks to go by, and hears of what is refused. What is
// written can be read on its ground, light and dark.
func TestScreenReader(t *testing.T) {
	t.Parallel()
	_, b := shown(t)
	have := map[string]int{}
	silent := []string{
		"StaticText", "InlineTextBox", "paragraph", "generic", "row", "cell", "gridcell", "rowgroup", "list", "listitem", "ListMarker",
		"none", "strong", "code", "LineBreak", "caption", "Caption", "banner", "main", "status",
	}
	for _, e := range b.accessible(t) {
		have[e.role]++
		if strings.TrimSpace(e.name) == "" && !slices.Contains(silent, e.role) {
			t.Errorf("a %s has no name", e.role)
		}
	}
	for role, least := range map[string]int{
		"banner": 1, "main": 1, "region": 4, "heading": 5, "table": 3, "columnheader": 20, "rowheader": 3, "image": 1, "log": 1, "status": 1,
		"button": 5, "progressbar": 3, "link": 1,
	} {
		if role == "progressbar" && have[role] == 0 {
			role = "progressIndicator"
		}
		if have[role] < least {
			t.Errorf("%d of the role %s, want %d: %v", have[role], role, least, have)
		}
	}
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(t, scheme)
		if got := b.evaluate(t, contrast); got != "" {
			t.Errorf("%s: hard to read: %s", scheme, got)
		}
	}
	if light, dark := background(t, b, "light"), background(t, b, "dark"); light == dark {
		t.Errorf("light and dark have the ground %s", light)
	}
}

func background(t *testing.T, b *chrome, scheme string) string {
	t.Helper()
	b.scheme(t, scheme)
	return b.evaluate(t, "getComputedStyle(document.body).backgroundColor")
}

// contrast lists elements with text whose contrast is below 4.5, as WCAG 2 counts it.
const contrast = `(() => {
	const numbers = (c) => (c.match(/[\d.]+/g) || []).map(Number);
	const light = (c) => { const [r, g, b] = numbers(c).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if ((numbers(c)[3] ?? 1) > 0) return c; } return "rgb(255, 255, 255)"; };
	const bad = new Set();
	for (const e of document.querySelectorAll("body *")) {
		if (e.matches("script,noscript,button,.skip") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
		const style = getComputedStyle(e), ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
		const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < 4.5) bad.add(e.tagName + "." + e.getAttribute("class") + " " + ratio.toFixed(2));
	}
	return [...bad].join(", ");
})()`
