package catalog_test

import (
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// What was withheld of an instance whose successor took its place does not come back beside that.
func TestAudit_ATK17_WhatIsWithheldOfAPredecessorStaysAway(t *testing.T) {
	t.Parallel()
	c := catalog.New(catalog.Config{})
	if err := c.Register(catalog.Registration{ID: "1", RuntimeID: "old", SelfID: "p", Type: "a", Version: "1.0.0"}); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Withhold(func(catalog.Registration) bool { return true })); n != 1 {
		t.Fatalf("%d withheld", n)
	}
	if err := c.Supersede("old", []catalog.Registration{{ID: "2", RuntimeID: "new", SelfID: "p", Type: "b", Version: "1.0.0"}}); err != nil {
		t.Fatal(err)
	}
	if back := c.Restore(func(catalog.Registration) bool { return true }); len(back) != 0 {
		t.Errorf("given back to an instance that was replaced: %v", back)
	}
}
