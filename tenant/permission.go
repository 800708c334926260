package tenant

import (
	"math/bits"
	"slices"
)

// Permissions is a set of things that may be done, and each constant below the
// set of one. The zero value allows nothing.
//
// Whoever adds one adds its name in permissionNames, says whether it can be held
// in one project alone (InProject), and looks at the sets of the built-in roles.
// Sets are stored by name, so the numbers may change.
type Permissions uint32

// The list of permissions. Names that OpenAI has are OpenAI's; the others are
// made like them.
const (
	ModelRequest    Permissions = 1 << iota // call models, and see which there are
	ProjectsRead                            // see projects, their limits and model permissions
	ProjectsWrite                           // make, change and archive projects, their limits and model permissions
	KeysRead                                // see service accounts and keys of projects
	KeysWrite                               // make, change and revoke them
	AdminKeysWrite                          // see, make and revoke admin keys
	CredentialWrite                         // see, set and delete credentials for providers, and routes
	IdentityWrite                           // see and change whose tokens the company trusts
	UsageRead                               // see usage, costs, budgets, limits and alerts of money, the ledger
	BudgetsWrite                            // set them
	AuditRead                               // see the audit log
	GroupsRead                              // see users, invites, groups and roles
	GroupsWrite                             // invite and remove users, make groups, assign roles
	RolesWrite                              // make, change and delete roles of one's own
)

// permissionNames are the names in the order of the constants.
var permissionNames = [...]string{
	"api.model.request",
	"api.organization.projects.read",
	"api.organization.projects.write",
	"api.organization.projects.api_keys.read",
	"api.organization.projects.api_keys.write",
	"api.organization.admin_api_keys.write",
	"api.organization.credentials.write",
	"api.organization.identity_providers.write",
	"api.usage.read",
	"api.organization.budgets.write",
	"api.audit_logs.read",
	"api.groups.read",
	"api.groups.write",
	"api.roles.write",
}

// AllPermissions is every permission there is.
const AllPermissions Permissions = 1<<len(permissionNames) - 1

// InProject is what can be held in one project alone. The rest is about the
// company as a whole, and a role of a project cannot have it.
const InProject = ModelRequest | ProjectsRead | ProjectsWrite | KeysRead | KeysWrite | UsageRead | BudgetsWrite |
	GroupsRead | GroupsWrite | RolesWrite

// Allows reports whether all of need is in p.
func (p Permissions) Allows(need Permissions) bool { return need&^p == 0 }

// Within reports whether nothing of p is missing in most: who holds most may
// grant p and take it away.
func (p Permissions) Within(most Permissions) bool { return p&^most == 0 }

// Names returns the names of the permissions in p, in the order of the list.
func (p Permissions) Names() []string {
	names := make([]string, 0, bits.OnesCount32(uint32(p)))
	for i, name := range permissionNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String returns the names with spaces between them.
func (p Permissions) String() string {
	text := ""
	for i, name := range p.Names() {
		if i > 0 {
			text += " "
		}
		text += name
	}
	return text
}

// PermissionOf returns the set of the permission with that name.
func PermissionOf(name string) (p Permissions, ok bool) {
	i := slices.Index(permissionNames[:], name)
	if i < 0 {
		return 0, false
	}
	return 1 << i, true
}

// PermissionsOf returns the set of the permissions with these names. unknown is
// the first name that is none, "" where all are.
func PermissionsOf(names []string) (p Permissions, unknown string) {
	for _, name := range names {
		one, ok := PermissionOf(name)
		if !ok {
			return 0, name
		}
		p |= one
	}
	return p, ""
}

// Grants is what a caller may do: in the company, which is in all its projects
// too, and beside that in single projects. The zero Grants allows nothing.
type Grants struct {
	Company  Permissions
	Projects map[string]Permissions // by the project's id

	// What a project's key may do, and where: of these there are many, and a map for
	// each would be most of what a company takes in memory.
	project string
	within  Permissions
}

// In returns what may be done in a project; "" is the company as a whole.
func (g Grants) In(project string) Permissions {
	if project == "" {
		return g.Company
	}
	p := g.Company | g.Projects[project]
	if project == g.project {
		p |= g.within
	}
	return p
}

// Allows reports whether all of need may be done in a project; "" is the company
// as a whole.
func (g Grants) Allows(project string, need Permissions) bool {
	return g.In(project).Allows(need)
}

// Narrow returns of g what the scopes of k leave. Those of a project's key narrow
// what it may be used for: see Scope.May.
func (k *Key) Narrow(g Grants) Grants {
	if k.Kind != KeyAdmin || k.Rules.Scopes == nil {
		return g
	}
	most, unknown := PermissionsOf(k.Rules.ScopeNames())
	if unknown != "" { // a name that is no permission any more
		return Grants{}
	}
	out := Grants{Company: g.Company & most}
	for project, p := range g.Projects {
		out.Add(project, p&most)
	}
	return out
}

// Within reports whether most has all of g, project by project.
func (g Grants) Within(most Grants) bool {
	if !g.Company.Within(most.Company) {
		return false
	}
	for project, p := range g.Projects {
		if !p.Within(most.In(project)) {
			return false
		}
	}
	return g.project == "" || g.within.Within(most.In(g.project))
}

// Add adds p in a project; "" is the company as a whole. g must not be shared.
func (g *Grants) Add(project string, p Permissions) {
	if project == "" {
		g.Company |= p
		return
	}
	if g.Projects == nil {
		g.Projects = map[string]Permissions{}
	}
	g.Projects[project] |= p & InProject
}

// keyGrants is what a key may do by its kind: one of a project calls models in
// its project, and an admin key that is nobody's acts for the company.
func keyGrants(k *Key) Grants {
	switch k.Kind {
	case KeyLive, KeyTest:
		return Grants{project: k.ProjectID, within: ModelRequest}
	case KeyAdmin:
		return k.Narrow(Grants{Company: AllPermissions})
	}
	return Grants{}
}
