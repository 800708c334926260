package test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"bulkhead/tenant"
)

// TestAccessDoc holds the table of permissions in the documentation against the
// list and the built-in roles.
func TestAccessDoc(t *testing.T) {
	doc, err := os.ReadFile("../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	mark := func(yes bool, word string) string {
		if yes {
			return word + " "
		}
		return ""
	}
	roles := append(tenant.BuiltInRoles(false), tenant.BuiltInRoles(true)...)
	for _, name := range tenant.AllPermissions.Names() {
		p, _ := tenant.PermissionOf(name)
		row := fmt.Sprintf("| `%s` | %s|", name, mark(tenant.InProject.Allows(p), "yes"))
		for _, o := range roles {
			row += " " + mark(o.Permissions.Allows(p), "x") + "|"
		}
		if !bytes.Contains(doc, []byte(row+"\n")) {
			t.Errorf("docs/access.md lacks the row\n%s", row)
		}
	}
	if n := bytes.Count(doc, []byte("\n| `api.")); n != len(tenant.AllPermissions.Names()) {
		t.Errorf("docs/access.md has %d permissions, want %d", n, len(tenant.AllPermissions.Names()))
	}
	for _, o := range roles {
		if !bytes.Contains(doc, []byte("`"+o.ID+"`")) {
			t.Errorf("docs/access.md does not name %s", o.ID)
		}
	}
}
