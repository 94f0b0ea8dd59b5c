// Package dropin_test uses the library as programs written for the one before do.
package dropin_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }
