package observe_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }
