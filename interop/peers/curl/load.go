package curl

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	ownerOnly = 0o600
	waves     = 3 // of calls
)

// Load makes as many calls at once as there are streams, each of a quarter of a second, with
// h2load on one connection, three times over.
func Load(ctx context.Context, j echo.Job) (string, error) {
	body := filepath.Join(j.Dir, "h2load.json")
	if err := os.WriteFile(body, []byte(`"MjUw"`), ownerOnly); err != nil { // 250
		return "", fmt.Errorf("body: %w", err)
	}
	return Fetch(ctx, url(j, echo.MethodSleep), waves*j.Streams, j.Streams,
		"--data="+body, "--header=content-type: application/json",
		"--header=x-plugin-runtime-id: "+j.ID, "--header=authorization: Bearer "+j.Token)
}

var succeeded = regexp.MustCompile(`status codes: (\d+) 2xx`)

// Fetch requests a URL n times, so many at once, and demands that each answer is a good one.
func Fetch(ctx context.Context, url string, n, concurrent int, args ...string) (string, error) {
	all := append([]string{"-n", strconv.Itoa(n), "-c", "1", "-m", strconv.Itoa(concurrent)}, args...)
	out, err := exec.CommandContext(ctx, "h2load", append(all, url)...).CombinedOutput() //nolint:gosec // the arguments are ours
	if err != nil {
		return "", fmt.Errorf("h2load: %w: %.300s", err, out)
	}
	m := succeeded.FindSubmatch(out)
	if len(m) < 2 || string(m[1]) != strconv.Itoa(n) {
		return "", fmt.Errorf("%w: h2load: %.600s", errWrong, out)
	}
	return fmt.Sprintf("%d requests, %d at once", n, concurrent), nil
}
