package web

import (
	"strings"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// who says which kinds of callers a route takes.
type who uint8

const (
	anyone   who = 0         // no key
	project  who = 1 << iota // a project's key, live or test
	admin                    // a company's admin key
	operator                 // the operator's key
	session                  // a person of the company, in a session

	managing = admin | session
)

// route is one line of the table: everything the gateway answers is here, and
// nothing else is answered or forwarded.
type route struct {
	method  string
	pattern string // {name} is one segment; {name...} at the end is the rest
	who     who
	// need is what the caller must be allowed to do: in the project where the path
	// names one as {project}, else in the company as a whole. 0 asks for nothing
	// beside being one of who.
	need   tenant.Permissions
	infer  openai.Endpoint // a call to a model: see chat.go
	manage manageFunc      // anything else: see manage.go
}

// publicRoutes are served on the public listener.
var publicRoutes = []route{
	{"POST", "/v1/chat/completions", project, tenant.ModelRequest, openai.Chat, nil},
	{"POST", "/v1/completions", project, tenant.ModelRequest, openai.Completions, nil},
	{"POST", "/v1/embeddings", project, tenant.ModelRequest, openai.Embeddings, nil},
	{"POST", "/v1/moderations", project, tenant.ModelRequest, openai.Moderations, nil},
	{"POST", "/v1/images/generations", project, tenant.ModelRequest, openai.Images, nil},
	{"POST", "/v1/images/edits", project, tenant.ModelRequest, openai.ImageEdits, nil},
	{"POST", "/v1/images/variations", project, tenant.ModelRequest, openai.ImageVariations, nil},
	{"POST", "/v1/audio/speech", project, tenant.ModelRequest, openai.Speech, nil},
	{"POST", "/v1/audio/transcriptions", project, tenant.ModelRequest, openai.Transcriptions, nil},
	{"POST", "/v1/audio/translations", project, tenant.ModelRequest, openai.Translations, nil},
	{"POST", "/v1/responses", project, tenant.ModelRequest, openai.Responses, nil},
	{"GET", "/v1/responses/{response}", project, tenant.ModelRequest, 0, (*Gateway).getResponse},
	{"DELETE", "/v1/responses/{response}", project, tenant.ModelRequest, 0, (*Gateway).deleteResponse},
	{"POST", "/v1/responses/{response}/cancel", project, tenant.ModelRequest, 0, (*Gateway).cancelResponse},
	{"GET", "/v1/responses/{response}/input_items", project, tenant.ModelRequest, 0, (*Gateway).listResponseInput},
	{"GET", "/v1/models", project | managing, tenant.ModelRequest, 0, (*Gateway).listModels},
	{"GET", "/v1/models/{model...}", project | managing, tenant.ModelRequest, 0, (*Gateway).getModel},

	{"GET", "/v1/agents", project | managing, tenant.ModelRequest, 0, (*Gateway).listAgents},
	{"POST", "/v1/agents", project | managing, tenant.ModelRequest, 0, (*Gateway).createAgent},
	{"GET", "/v1/agents/{agent}", project | managing, tenant.ModelRequest, 0, (*Gateway).getAgent},
	{"POST", "/v1/agents/{agent}", project | managing, tenant.ModelRequest, 0, (*Gateway).updateAgent},
	{"DELETE", "/v1/agents/{agent}", project | managing, tenant.ModelRequest, 0, (*Gateway).deleteAgent},
	{"GET", "/v1/agents/{agent}/versions", project | managing, tenant.ModelRequest, 0, (*Gateway).listAgentVersions},

	{"POST", "/v1/conversations", project, tenant.ModelRequest, 0, (*Gateway).createConversation},
	{"GET", "/v1/conversations/{conversation}", project, tenant.ModelRequest, 0, (*Gateway).getConversation},
	{"POST", "/v1/conversations/{conversation}", project, tenant.ModelRequest, 0, (*Gateway).updateConversation},
	{"DELETE", "/v1/conversations/{conversation}", project, tenant.ModelRequest, 0, (*Gateway).deleteConversation},
	{"GET", "/v1/conversations/{conversation}/items", project, tenant.ModelRequest, 0, (*Gateway).listItems},
	{"POST", "/v1/conversations/{conversation}/items", project, tenant.ModelRequest, 0, (*Gateway).createItems},
	{"GET", "/v1/conversations/{conversation}/items/{item}", project, tenant.ModelRequest, 0, (*Gateway).getItem},
	{"DELETE", "/v1/conversations/{conversation}/items/{item}", project, tenant.ModelRequest, 0, (*Gateway).deleteItem},
	{"GET", "/v1/organization/memory", managing, tenant.ProjectsRead, 0, (*Gateway).getMemory},
	{"POST", "/v1/organization/memory", managing, tenant.ProjectsWrite, 0, (*Gateway).setMemory},

	{"GET", "/v1/organization/contexts", managing, tenant.ProjectsRead, 0, (*Gateway).listContexts},
	{"POST", "/v1/organization/contexts", managing, tenant.ProjectsWrite, 0, (*Gateway).createContext},
	{"GET", "/v1/organization/contexts/{context}", managing, tenant.ProjectsRead, 0, (*Gateway).getContext},
	{"POST", "/v1/organization/contexts/{context}", managing, tenant.ProjectsWrite, 0, (*Gateway).updateContext},
	{"DELETE", "/v1/organization/contexts/{context}", managing, tenant.ProjectsWrite, 0, (*Gateway).deleteContext},

	{"GET", "/v1/organization/embeddings", managing, tenant.CredentialWrite, 0, (*Gateway).getEmbeddings},
	{"POST", "/v1/organization/embeddings", managing, tenant.CredentialWrite, 0, (*Gateway).setEmbeddings},

	{"GET", "/v1/organization/projects/{project}/default_agent", managing, tenant.ProjectsRead, 0, (*Gateway).getDefaultAgent},
	{"POST", "/v1/organization/projects/{project}/default_agent", managing, tenant.ProjectsWrite, 0, (*Gateway).setDefaultAgent},
	{"DELETE", "/v1/organization/projects/{project}/default_agent", managing, tenant.ProjectsWrite, 0, (*Gateway).deleteDefaultAgent},

	{"GET", "/v1/files", project | managing, tenant.ModelRequest, 0, (*Gateway).listFiles},
	{"POST", "/v1/files", project | managing, tenant.ModelRequest, 0, (*Gateway).createFile},
	{"GET", "/v1/files/{file}", project | managing, tenant.ModelRequest, 0, (*Gateway).getFile},
	{"DELETE", "/v1/files/{file}", project | managing, tenant.ModelRequest, 0, (*Gateway).deleteFile},
	{"GET", "/v1/files/{file}/content", project | managing, tenant.ModelRequest, 0, (*Gateway).getFileContent},
	{"GET", "/v1/vector_stores", project | managing, tenant.ModelRequest, 0, (*Gateway).listVectorStores},
	{"POST", "/v1/vector_stores", project | managing, tenant.ModelRequest, 0, (*Gateway).createVectorStore},
	{"GET", "/v1/vector_stores/{store}", project | managing, tenant.ModelRequest, 0, (*Gateway).getVectorStore},
	{"POST", "/v1/vector_stores/{store}", project | managing, tenant.ModelRequest, 0, (*Gateway).updateVectorStore},
	{"DELETE", "/v1/vector_stores/{store}", project | managing, tenant.ModelRequest, 0, (*Gateway).deleteVectorStore},
	{"POST", "/v1/vector_stores/{store}/search", project | managing, tenant.ModelRequest, 0, (*Gateway).searchVectorStore},
	{"GET", "/v1/vector_stores/{store}/files", project | managing, tenant.ModelRequest, 0, (*Gateway).listStoreFiles},
	{"POST", "/v1/vector_stores/{store}/files", project | managing, tenant.ModelRequest, 0, (*Gateway).attachFile},
	{"GET", "/v1/vector_stores/{store}/files/{file}", project | managing, tenant.ModelRequest, 0, (*Gateway).getStoreFile},
	{"POST", "/v1/vector_stores/{store}/files/{file}", project | managing, tenant.ModelRequest, 0, (*Gateway).updateStoreFile},
	{"DELETE", "/v1/vector_stores/{store}/files/{file}", project | managing, tenant.ModelRequest, 0, (*Gateway).detachFile},
	{"GET", "/v1/vector_stores/{store}/files/{file}/content", project | managing, tenant.ModelRequest, 0, (*Gateway).getStoreFileContent},
	{"POST", "/v1/vector_stores/{store}/file_batches", project | managing, tenant.ModelRequest, 0, (*Gateway).createBatch},
	{"GET", "/v1/vector_stores/{store}/file_batches/{batch}", project | managing, tenant.ModelRequest, 0, (*Gateway).getBatch},
	{"POST", "/v1/vector_stores/{store}/file_batches/{batch}/cancel", project | managing, tenant.ModelRequest, 0, (*Gateway).cancelBatch},
	{"GET", "/v1/vector_stores/{store}/file_batches/{batch}/files", project | managing, tenant.ModelRequest, 0, (*Gateway).listBatchFiles},

	{"GET", "/v1/organization/projects", managing, tenant.ProjectsRead, 0, (*Gateway).listProjects},
	{"POST", "/v1/organization/projects", managing, tenant.ProjectsWrite, 0, (*Gateway).createProject},
	{"GET", "/v1/organization/projects/{project}", managing, tenant.ProjectsRead, 0, (*Gateway).getProject},
	{"POST", "/v1/organization/projects/{project}", managing, tenant.ProjectsWrite, 0, (*Gateway).updateProject},
	{"POST", "/v1/organization/projects/{project}/archive", managing, tenant.ProjectsWrite, 0, (*Gateway).archiveProject},

	{"GET", "/v1/organization/projects/{project}/service_accounts", managing, tenant.KeysRead, 0, (*Gateway).listServiceAccounts},
	{"POST", "/v1/organization/projects/{project}/service_accounts", managing, tenant.KeysWrite | tenant.ModelRequest, 0, (*Gateway).createServiceAccount},
	{"GET", "/v1/organization/projects/{project}/service_accounts/{account}", managing, tenant.KeysRead, 0, (*Gateway).getServiceAccount},
	{"POST", "/v1/organization/projects/{project}/service_accounts/{account}", managing, tenant.KeysWrite, 0, (*Gateway).updateServiceAccount},
	{"DELETE", "/v1/organization/projects/{project}/service_accounts/{account}", managing, tenant.KeysWrite, 0, (*Gateway).deleteServiceAccount},
	{"POST", "/v1/organization/projects/{project}/service_accounts/{account}/api_keys", managing, tenant.KeysWrite | tenant.ModelRequest, 0, (*Gateway).createServiceAccountKey},

	{"GET", "/v1/organization/projects/{project}/api_keys", managing, tenant.KeysRead, 0, (*Gateway).listProjectKeys},
	{"GET", "/v1/organization/projects/{project}/api_keys/{key}", managing, tenant.KeysRead, 0, (*Gateway).getProjectKey},
	{"POST", "/v1/organization/projects/{project}/api_keys/{key}", managing, tenant.KeysWrite, 0, (*Gateway).updateProjectKey},
	{"DELETE", "/v1/organization/projects/{project}/api_keys/{key}", managing, tenant.KeysWrite, 0, (*Gateway).deleteProjectKey},
	{"POST", "/v1/organization/projects/{project}/api_keys/{key}/rotate", managing, tenant.KeysWrite | tenant.ModelRequest, 0, (*Gateway).rotateProjectKey},

	{"GET", "/v1/organization/projects/{project}/rate_limits", managing, tenant.ProjectsRead, 0, (*Gateway).listRateLimits},
	{"POST", "/v1/organization/projects/{project}/rate_limits/{limit}", managing, tenant.ProjectsWrite, 0, (*Gateway).updateRateLimit},

	{"GET", "/v1/organization/projects/{project}/spend_limit", managing, tenant.UsageRead, 0, (*Gateway).getProjectSpendLimit},
	{"POST", "/v1/organization/projects/{project}/spend_limit", managing, tenant.BudgetsWrite, 0, (*Gateway).setProjectSpendLimit},
	{"DELETE", "/v1/organization/projects/{project}/spend_limit", managing, tenant.BudgetsWrite, 0, (*Gateway).deleteProjectSpendLimit},
	{"GET", "/v1/organization/projects/{project}/spend_alerts", managing, tenant.UsageRead, 0, (*Gateway).listProjectAlerts},
	{"POST", "/v1/organization/projects/{project}/spend_alerts", managing, tenant.BudgetsWrite, 0, (*Gateway).createProjectAlert},
	{"GET", "/v1/organization/projects/{project}/spend_alerts/{alert}", managing, tenant.UsageRead, 0, (*Gateway).getProjectAlert},
	{"POST", "/v1/organization/projects/{project}/spend_alerts/{alert}", managing, tenant.BudgetsWrite, 0, (*Gateway).updateProjectAlert},
	{"DELETE", "/v1/organization/projects/{project}/spend_alerts/{alert}", managing, tenant.BudgetsWrite, 0, (*Gateway).deleteProjectAlert},

	{"POST", tokenPath, anyone, 0, 0, (*Gateway).exchangeToken},
	{"GET", "/v1/organization/workload_identity_providers", managing, tenant.IdentityWrite, 0, (*Gateway).listIdentityProviders},
	{"POST", "/v1/organization/workload_identity_providers", managing, tenant.IdentityWrite, 0, (*Gateway).createIdentityProvider},
	{"GET", "/v1/organization/workload_identity_providers/{provider}", managing, tenant.IdentityWrite, 0, (*Gateway).getIdentityProvider},
	{"POST", "/v1/organization/workload_identity_providers/{provider}", managing, tenant.IdentityWrite, 0, (*Gateway).updateIdentityProvider},
	{"DELETE", "/v1/organization/workload_identity_providers/{provider}", managing, tenant.IdentityWrite, 0, (*Gateway).deleteIdentityProvider},
	{"GET", "/v1/organization/workload_identity_providers/{provider}/federation_rules", managing, tenant.IdentityWrite, 0, (*Gateway).listFederationRules},
	{"POST", "/v1/organization/workload_identity_providers/{provider}/federation_rules", managing, tenant.IdentityWrite, 0, (*Gateway).createFederationRule},
	{"GET", "/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}", managing, tenant.IdentityWrite, 0, (*Gateway).getFederationRule},
	{"POST", "/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}", managing, tenant.IdentityWrite, 0, (*Gateway).updateFederationRule},
	{"DELETE", "/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}", managing, tenant.IdentityWrite, 0, (*Gateway).deleteFederationRule},

	{"GET", "/v1/organization/projects/{project}/users", managing, tenant.GroupsRead, 0, (*Gateway).listProjectUsers},
	{"POST", "/v1/organization/projects/{project}/users", managing, tenant.GroupsWrite, 0, (*Gateway).addProjectUser},
	{"GET", "/v1/organization/projects/{project}/users/{user}", managing, tenant.GroupsRead, 0, (*Gateway).getProjectUser},
	{"POST", "/v1/organization/projects/{project}/users/{user}", managing, tenant.GroupsWrite, 0, (*Gateway).updateProjectUser},
	{"DELETE", "/v1/organization/projects/{project}/users/{user}", managing, tenant.GroupsWrite, 0, (*Gateway).deleteProjectUser},
	{"GET", "/v1/organization/projects/{project}/groups", managing, tenant.GroupsRead, 0, (*Gateway).listProjectGroups},
	{"POST", "/v1/organization/projects/{project}/groups", managing, tenant.GroupsWrite, 0, (*Gateway).addProjectGroup},
	{"GET", "/v1/organization/projects/{project}/groups/{group}", managing, tenant.GroupsRead, 0, (*Gateway).getProjectGroup},
	{"DELETE", "/v1/organization/projects/{project}/groups/{group}", managing, tenant.GroupsWrite, 0, (*Gateway).deleteProjectGroup},

	{"GET", "/v1/organization/projects/{project}/model_permissions", managing, tenant.ProjectsRead, 0, (*Gateway).getModelPermissions},
	{"POST", "/v1/organization/projects/{project}/model_permissions", managing, tenant.ProjectsWrite, 0, (*Gateway).updateModelPermissions},
	{"DELETE", "/v1/organization/projects/{project}/model_permissions", managing, tenant.ProjectsWrite, 0, (*Gateway).deleteModelPermissions},

	{"GET", "/v1/organization/admin_api_keys", managing, tenant.AdminKeysWrite, 0, (*Gateway).listAdminKeys},
	{"POST", "/v1/organization/admin_api_keys", managing, tenant.AdminKeysWrite, 0, (*Gateway).createAdminKey},
	{"GET", "/v1/organization/admin_api_keys/{key}", managing, tenant.AdminKeysWrite, 0, (*Gateway).getAdminKey},
	{"DELETE", "/v1/organization/admin_api_keys/{key}", managing, tenant.AdminKeysWrite, 0, (*Gateway).deleteAdminKey},
	{"POST", "/v1/organization/admin_api_keys/{key}/rotate", managing, tenant.AdminKeysWrite, 0, (*Gateway).rotateAdminKey},
	{"POST", "/v1/organization/api_keys/revoke", managing, tenant.KeysWrite | tenant.AdminKeysWrite, 0, (*Gateway).revokeLeaked},

	{"GET", "/v1/organization/credentials", managing, tenant.CredentialWrite, 0, (*Gateway).listCredentials},
	{"POST", "/v1/organization/credentials", managing, tenant.CredentialWrite, 0, (*Gateway).putCredential},
	{"GET", "/v1/organization/credentials/{credential}", managing, tenant.CredentialWrite, 0, (*Gateway).getCredential},
	{"DELETE", "/v1/organization/credentials/{credential}", managing, tenant.CredentialWrite, 0, (*Gateway).deleteCredential},

	{"GET", "/v1/organization/routes", managing, tenant.CredentialWrite, 0, (*Gateway).listRoutes},
	{"POST", "/v1/organization/routes", managing, tenant.CredentialWrite, 0, (*Gateway).putRoute},
	{"GET", "/v1/organization/routes/{route}", managing, tenant.CredentialWrite, 0, (*Gateway).getRoute},
	{"DELETE", "/v1/organization/routes/{route}", managing, tenant.CredentialWrite, 0, (*Gateway).deleteRoute},

	{"GET", "/v1/organization/prices", managing, tenant.UsageRead, 0, (*Gateway).listPrices},
	{"POST", "/v1/organization/prices", managing, tenant.BudgetsWrite, 0, (*Gateway).putPrice},
	{"GET", "/v1/organization/prices/{price...}", managing, tenant.UsageRead, 0, (*Gateway).getPrice},
	{"DELETE", "/v1/organization/prices/{price...}", managing, tenant.BudgetsWrite, 0, (*Gateway).deletePrice},

	{"GET", "/v1/organization/audit_logs", managing, tenant.AuditRead, 0, (*Gateway).listAuditLogs},

	{"GET", "/v1/organization/budgets", managing, tenant.UsageRead, 0, (*Gateway).listBudgets},
	{"POST", "/v1/organization/budgets", managing, tenant.BudgetsWrite, 0, (*Gateway).createBudget},
	{"GET", "/v1/organization/budgets/calendar", managing, tenant.UsageRead, 0, (*Gateway).getCalendar},
	{"POST", "/v1/organization/budgets/calendar", managing, tenant.BudgetsWrite, 0, (*Gateway).setCalendar},
	{"GET", "/v1/organization/budgets/degraded", managing, tenant.UsageRead, 0, (*Gateway).getDegraded},
	{"POST", "/v1/organization/budgets/degraded", managing, tenant.BudgetsWrite, 0, (*Gateway).setDegraded},
	{"GET", "/v1/organization/budgets/{budget}", managing, tenant.UsageRead, 0, (*Gateway).getBudget},
	{"POST", "/v1/organization/budgets/{budget}", managing, tenant.BudgetsWrite, 0, (*Gateway).updateBudget},
	{"DELETE", "/v1/organization/budgets/{budget}", managing, tenant.BudgetsWrite, 0, (*Gateway).deleteBudget},
	{"GET", "/v1/organization/spend_limit", managing, tenant.UsageRead, 0, (*Gateway).getCompanySpendLimit},
	{"POST", "/v1/organization/spend_limit", managing, tenant.BudgetsWrite, 0, (*Gateway).setCompanySpendLimit},
	{"DELETE", "/v1/organization/spend_limit", managing, tenant.BudgetsWrite, 0, (*Gateway).deleteCompanySpendLimit},
	{"GET", "/v1/organization/spend_alerts", managing, tenant.UsageRead, 0, (*Gateway).listCompanyAlerts},
	{"POST", "/v1/organization/spend_alerts", managing, tenant.BudgetsWrite, 0, (*Gateway).createCompanyAlert},
	{"GET", "/v1/organization/spend_alerts/{alert}", managing, tenant.UsageRead, 0, (*Gateway).getCompanyAlert},
	{"POST", "/v1/organization/spend_alerts/{alert}", managing, tenant.BudgetsWrite, 0, (*Gateway).updateCompanyAlert},
	{"DELETE", "/v1/organization/spend_alerts/{alert}", managing, tenant.BudgetsWrite, 0, (*Gateway).deleteCompanyAlert},
	{"GET", "/v1/organization/usage/completions", managing, tenant.UsageRead, 0, (*Gateway).getUsageOfCompletions},
	{"GET", "/v1/organization/usage/embeddings", managing, tenant.UsageRead, 0, (*Gateway).getUsageOfEmbeddings},
	{"GET", "/v1/organization/usage/moderations", managing, tenant.UsageRead, 0, (*Gateway).getUsageOfModerations},
	{"GET", "/v1/organization/costs", managing, tenant.UsageRead, 0, (*Gateway).getCosts},
	{"GET", "/v1/organization/ledger/export", managing, tenant.UsageRead, 0, (*Gateway).exportLedger},

	{"GET", "/v1/organization/users", managing, tenant.GroupsRead, 0, (*Gateway).listUsers},
	{"GET", "/v1/organization/users/{user}", managing, tenant.GroupsRead, 0, (*Gateway).getUser},
	{"POST", "/v1/organization/users/{user}", managing, tenant.GroupsWrite, 0, (*Gateway).updateUser},
	{"DELETE", "/v1/organization/users/{user}", managing, tenant.GroupsWrite, 0, (*Gateway).deleteUser},
	{"GET", "/v1/organization/invites", managing, tenant.GroupsRead, 0, (*Gateway).listInvites},
	{"POST", "/v1/organization/invites", managing, tenant.GroupsWrite, 0, (*Gateway).createInvite},
	{"POST", "/v1/organization/invites/accept", anyone, 0, 0, (*Gateway).acceptInvite},
	{"GET", "/v1/organization/invites/{invite}", managing, tenant.GroupsRead, 0, (*Gateway).getInvite},
	{"DELETE", "/v1/organization/invites/{invite}", managing, tenant.GroupsWrite, 0, (*Gateway).deleteInvite},
	{"GET", "/v1/organization/groups", managing, tenant.GroupsRead, 0, (*Gateway).listGroups},
	{"POST", "/v1/organization/groups", managing, tenant.GroupsWrite, 0, (*Gateway).createGroup},
	{"GET", "/v1/organization/groups/{group}", managing, tenant.GroupsRead, 0, (*Gateway).getGroup},
	{"POST", "/v1/organization/groups/{group}", managing, tenant.GroupsWrite, 0, (*Gateway).updateGroup},
	{"DELETE", "/v1/organization/groups/{group}", managing, tenant.GroupsWrite, 0, (*Gateway).deleteGroup},
	{"GET", "/v1/organization/groups/{group}/users", managing, tenant.GroupsRead, 0, (*Gateway).listGroupUsers},
	{"POST", "/v1/organization/groups/{group}/users", managing, tenant.GroupsWrite, 0, (*Gateway).addGroupUser},
	{"GET", "/v1/organization/groups/{group}/users/{user}", managing, tenant.GroupsRead, 0, (*Gateway).getGroupUser},
	{"DELETE", "/v1/organization/groups/{group}/users/{user}", managing, tenant.GroupsWrite, 0, (*Gateway).deleteGroupUser},
	{"GET", "/v1/organization/roles", managing, tenant.GroupsRead, 0, (*Gateway).listRoles},
	{"POST", "/v1/organization/roles", managing, tenant.RolesWrite, 0, (*Gateway).createRole},
	{"GET", "/v1/organization/roles/{role}", managing, tenant.GroupsRead, 0, (*Gateway).getRole},
	{"POST", "/v1/organization/roles/{role}", managing, tenant.RolesWrite, 0, (*Gateway).updateRole},
	{"DELETE", "/v1/organization/roles/{role}", managing, tenant.RolesWrite, 0, (*Gateway).deleteRole},
	{"GET", "/v1/organization/users/{user}/roles", managing, tenant.GroupsRead, 0, (*Gateway).listGrantedRoles},
	{"POST", "/v1/organization/users/{user}/roles", managing, tenant.GroupsWrite, 0, (*Gateway).grantRole},
	{"GET", "/v1/organization/users/{user}/roles/{role}", managing, tenant.GroupsRead, 0, (*Gateway).getGrantedRole},
	{"DELETE", "/v1/organization/users/{user}/roles/{role}", managing, tenant.GroupsWrite, 0, (*Gateway).revokeRole},
	{"GET", "/v1/organization/groups/{group}/roles", managing, tenant.GroupsRead, 0, (*Gateway).listGrantedRoles},
	{"POST", "/v1/organization/groups/{group}/roles", managing, tenant.GroupsWrite, 0, (*Gateway).grantRole},
	{"GET", "/v1/organization/groups/{group}/roles/{role}", managing, tenant.GroupsRead, 0, (*Gateway).getGrantedRole},
	{"DELETE", "/v1/organization/groups/{group}/roles/{role}", managing, tenant.GroupsWrite, 0, (*Gateway).revokeRole},
	{"GET", "/v1/projects/{project}/roles", managing, tenant.GroupsRead, 0, (*Gateway).listRoles},
	{"POST", "/v1/projects/{project}/roles", managing, tenant.RolesWrite, 0, (*Gateway).createRole},
	{"GET", "/v1/projects/{project}/roles/{role}", managing, tenant.GroupsRead, 0, (*Gateway).getRole},
	{"POST", "/v1/projects/{project}/roles/{role}", managing, tenant.RolesWrite, 0, (*Gateway).updateRole},
	{"DELETE", "/v1/projects/{project}/roles/{role}", managing, tenant.RolesWrite, 0, (*Gateway).deleteRole},
	{"GET", "/v1/projects/{project}/users/{user}/roles", managing, tenant.GroupsRead, 0, (*Gateway).listGrantedRoles},
	{"POST", "/v1/projects/{project}/users/{user}/roles", managing, tenant.GroupsWrite, 0, (*Gateway).grantRole},
	{"GET", "/v1/projects/{project}/users/{user}/roles/{role}", managing, tenant.GroupsRead, 0, (*Gateway).getGrantedRole},
	{"DELETE", "/v1/projects/{project}/users/{user}/roles/{role}", managing, tenant.GroupsWrite, 0, (*Gateway).revokeRole},
	{"GET", "/v1/projects/{project}/groups/{group}/roles", managing, tenant.GroupsRead, 0, (*Gateway).listGrantedRoles},
	{"POST", "/v1/projects/{project}/groups/{group}/roles", managing, tenant.GroupsWrite, 0, (*Gateway).grantRole},
	{"GET", "/v1/projects/{project}/groups/{group}/roles/{role}", managing, tenant.GroupsRead, 0, (*Gateway).getGrantedRole},
	{"DELETE", "/v1/projects/{project}/groups/{group}/roles/{role}", managing, tenant.GroupsWrite, 0, (*Gateway).revokeRole},
	{"POST", "/v1/organization/access/check", managing, tenant.GroupsRead, 0, (*Gateway).checkAccess},

	{"POST", "/v1/sessions", anyone, 0, 0, (*Gateway).login},
	{"GET", "/v1/sessions", session, 0, 0, (*Gateway).listSessions},
	{"GET", "/v1/sessions/current", session, 0, 0, (*Gateway).getCurrentSession},
	{"POST", "/v1/sessions/current/password", session, 0, 0, (*Gateway).changePassword},
	{"DELETE", "/v1/sessions/{session}", session, 0, 0, (*Gateway).endSession},
}

// opsRoutes are served on the operator's listener.
var opsRoutes = []route{
	{"GET", "/healthz", anyone, 0, 0, nil},
	{"GET", "/readyz", anyone, 0, 0, nil},
	{"GET", "/metrics", anyone, 0, 0, nil},

	{"GET", "/admin/companies", operator, 0, 0, (*Gateway).listCompanies},
	{"POST", "/admin/companies", operator, 0, 0, (*Gateway).createCompany},
	{"GET", "/admin/companies/{company}", operator, 0, 0, (*Gateway).getCompany},
	{"POST", "/admin/companies/{company}/suspend", operator, 0, 0, (*Gateway).suspendCompany},
	{"POST", "/admin/companies/{company}/resume", operator, 0, 0, (*Gateway).resumeCompany},
	{"POST", "/admin/companies/{company}/erase", operator, 0, 0, (*Gateway).eraseCompany},
	{"GET", "/admin/companies/{company}/ceiling", operator, 0, 0, (*Gateway).getCeiling},
	{"PUT", "/admin/companies/{company}/ceiling", operator, 0, 0, (*Gateway).putCeiling},
	{"DELETE", "/admin/companies/{company}/ceiling", operator, 0, 0, (*Gateway).deleteCeiling},

	{"GET", "/admin/prices", operator, 0, 0, (*Gateway).listOperatorPrices},
	{"PUT", "/admin/prices", operator, 0, 0, (*Gateway).putOperatorPrice},
	{"DELETE", "/admin/prices/{override...}", operator, 0, 0, (*Gateway).deleteOperatorPrice},

	{"GET", "/admin/knowledge", operator, 0, 0, (*Gateway).getMasterKnowledge},
	{"PUT", "/admin/knowledge", operator, 0, 0, (*Gateway).putMasterKnowledge},
	{"DELETE", "/admin/knowledge", operator, 0, 0, (*Gateway).deleteMasterKnowledge},

	{"GET", "/admin/companies/{company}/lent", operator, 0, 0, (*Gateway).getLent},
	{"PUT", "/admin/companies/{company}/lent", operator, 0, 0, (*Gateway).putLent},
	{"GET", "/admin/credentials", operator, 0, 0, (*Gateway).listLentCredentials},
	{"POST", "/admin/credentials", operator, 0, 0, (*Gateway).putLentCredential},
	{"GET", "/admin/credentials/{credential}", operator, 0, 0, (*Gateway).getLentCredential},
	{"DELETE", "/admin/credentials/{credential}", operator, 0, 0, (*Gateway).deleteLentCredential},

	{"GET", "/admin/companies/{company}/audiences", operator, 0, 0, (*Gateway).listAudiences},
	{"POST", "/admin/companies/{company}/audiences", operator, 0, 0, (*Gateway).approveAudience},
	{"DELETE", "/admin/companies/{company}/audiences/{audience}", operator, 0, 0, (*Gateway).revokeAudience},
}

// Route describes one line of the table, for tests and documentation.
type Route struct {
	Method, Pattern string
	Keys            []tenant.KeyKind   // kinds of key that are let in, KeySession for people; empty: none is needed
	Need            tenant.Permissions // in the project that the path names, else in the company
	Ops             bool               // on the operator's listener
}

// Routes returns the table.
func Routes() (out []Route) {
	for i, table := range [...][]route{publicRoutes, opsRoutes} {
		for _, r := range table {
			d := Route{Method: r.method, Pattern: r.pattern, Need: r.need, Ops: i == 1}
			if r.who&project != 0 {
				d.Keys = append(d.Keys, tenant.KeyLive, tenant.KeyTest)
			}
			if r.who&admin != 0 {
				d.Keys = append(d.Keys, tenant.KeyAdmin)
			}
			if r.who&operator != 0 {
				d.Keys = append(d.Keys, tenant.KeyOperator)
			}
			if r.who&session != 0 {
				d.Keys = append(d.Keys, tenant.KeySession)
			}
			out = append(out, d)
		}
	}
	return out
}

// routeTable finds the route of a request.
type routeTable struct {
	exact    map[string][]*route // by path, for patterns without parameters
	patterns []*route
	parts    []string // see parts
}

func newRouteTable(routes []route) *routeTable {
	t := &routeTable{exact: map[string][]*route{}, parts: parts(routes)}
	for i := range routes {
		r := &routes[i]
		if strings.Contains(r.pattern, "{") {
			t.patterns = append(t.patterns, r)
		} else {
			t.exact[r.pattern] = append(t.exact[r.pattern], r)
		}
	}
	return t
}

// param is a parameter of a path.
type param struct{ name, value string }

var (
	errNoPath    = fault.New(fault.NotFound, "Unknown path. The gateway serves the paths of OpenAI's API that its documentation lists.").WithCode("unknown_url")
	errNoMethod  = fault.New(fault.MethodNotAllowed, "This path does not take this method.")
	errHops      = fault.New(fault.Invalid, "The request went through too many gateways: one of them is its own upstream.").WithCode("too_many_hops")
	errSmuggling = fault.New(fault.Invalid, "It is not clear where the body of the request ends: it has Content-Length and Transfer-Encoding, or an encoding other than chunked.").WithCode("ambiguous_body")
)

// find returns the route of a request and the parameters of its path. The path
// is the normalised one: nothing else is looked at, and nothing of it is ever
// sent on.
func (t *routeTable) find(rc *fasthttp.RequestCtx) (*route, []param, error) {
	path, method := rc.Path(), rc.Method()
	candidates := t.exact[string(path)]
	for _, r := range candidates {
		if r.method == string(method) {
			return r, nil, nil
		}
	}
	known := len(candidates) > 0
	for _, r := range t.patterns {
		params, ok := match(r.pattern, string(path))
		if !ok {
			continue
		}
		if r.method == string(method) {
			return r, params, nil
		}
		known = true
	}
	if known {
		return nil, nil, errNoMethod
	}
	return nil, nil, noPath(string(path))
}

// notServed are parts of OpenAI's API that keep something of a company's at the
// provider, or run there for long: nothing of them is forwarded.
var notServed = map[string]string{
	"batches": "batches", "uploads": "uploads in parts", "fine_tuning": "fine-tuning", "fine-tunes": "fine-tuning",
	"realtime": "the realtime API", "assistants": "assistants", "threads": "threads", "containers": "containers", "evals": "evals",
	"videos": "videos", "skills": "skills", "chatkit": "ChatKit",
}

// noPath says that there is no such path, and of OpenAI's own which part of its API
// is not served.
func noPath(path string) error {
	if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
		first, _, _ := strings.Cut(rest, "/")
		if what := notServed[first]; what != "" {
			return fault.New(fault.NotFound, "This gateway does not serve %s (/v1/%s). Nothing was sent to a provider.", what, first).WithCode("unsupported_api")
		}
	}
	return errNoPath
}

// match compares a path with a pattern, segment by segment.
func match(pattern, path string) (params []param, ok bool) {
	for pattern != "" {
		var want, got string
		pattern, want = segment(pattern)
		if name, rest := strings.CutSuffix(want, "...}"); rest {
			value := strings.TrimPrefix(path, "/")
			return append(params, param{name[1:], value}), value != ""
		}
		path, got = segment(path)
		switch {
		case strings.HasPrefix(want, "{"):
			if got == "" {
				return nil, false
			}
			params = append(params, param{want[1 : len(want)-1], got})
		case want != got:
			return nil, false
		}
	}
	return params, path == ""
}

// segment cuts the first "/segment" off p.
func segment(p string) (rest, first string) {
	p = strings.TrimPrefix(p, "/")
	if i := strings.IndexByte(p, '/'); i >= 0 {
		return p[i:], p[:i]
	}
	return "", p
}

// kinds returns the kinds of key that w lets in.
func (w who) admits(k tenant.KeyKind) bool {
	switch k {
	case tenant.KeyLive, tenant.KeyTest:
		return w&project != 0
	case tenant.KeyAdmin:
		return w&admin != 0
	case tenant.KeySession:
		return w&session != 0
	}
	return false
}
