package store

import "strings"

// sqlText is what a database is given. Only the statements below and the
// migrations make one, so no text put together at run time reaches a database.
type sqlText string

// A statement is on the data of companies. $1 is the company's id everywhere;
// the transaction fills it in. A test reads the text and refuses a company's
// table without its predicate.
type statement struct{ name, text string }

// A globalStatement is on tables that hold nothing of a company's; see
// globalTables.
type globalStatement struct{ name, text string }

// An operatorStatement looks over company borders, for a holder of a
// tenant.Act. There are few, and they read or change the company's row only.
type operatorStatement struct{ name, text string }

// anyStatement is one of the three.
type anyStatement interface {
	bind(t *tx, args []any) (name string, text sqlText, all []any)
}

func (st statement) bind(t *tx, args []any) (string, sqlText, []any) {
	if t.company == "" {
		panic("BUG: statement " + st.name + " without a company")
	}
	all := make([]any, 0, len(args)+1)
	return st.name, st.sql(), append(append(all, t.company), args...)
}

func (st globalStatement) bind(_ *tx, args []any) (string, sqlText, []any) {
	return st.name, sqlText(st.text), args
}

func (st operatorStatement) bind(t *tx, args []any) (string, sqlText, []any) {
	if !t.act {
		panic("BUG: statement " + st.name + " without an act")
	}
	return st.name, sqlText(st.text), args
}

// Statements returns the names of all statements on company data that have a
// predicate to lose, for the tests that take it away from each in turn.
func Statements() []string {
	var names []string
	for _, st := range companyStatements() {
		if strings.Contains(st.text, "company_id = $1") {
			names = append(names, st.name)
		}
	}
	return names
}

// companyStatements lists every statement of the package. A test compares it
// with the source.
func companyStatements() []statement {
	all := []statement{
		alertDeleted, alertEventInserted, alertEventNext, alertEventTried, alertEventsDeleted, alertEventsDue, alertEventsOf, alertEventsOld,
		alertInserted, alertOne, alertUpdated, alertsAll, alertsCounted,
		auditAll, auditHeadBegun, auditHeadOne, auditHeadSet, auditHeadTaken, auditInserted, auditKeysFound, auditLinked,
		auditLinks, auditPlaces,
		budgetDeleted, budgetInserted, budgetOne, budgetUpdated, budgetsOfOwner, budgetsLoaded, calendarLoaded, calendarSet,
		companyBumped, companyInserted, companyLoaded, companyStatusSet, companyTombstoned,
		credentialNameDeleted, credentialNamePut, credentialNamesListed,
		credentialDeleted, credentialInserted, credentialOne, credentialProviders, credentialUpdated, credentialsListed,
		dataKeyInserted, dataKeyOne,
		entriesAhead, entriesAppended, entriesDropped, entryAppended, entryAppendedWhole,
		keyInserted, keyLoaded, keyOne, keyRevoked, keyUpdated, keysOfAccountRevoked, adminKeyOne, adminKeyRevoked,
		modelLimitDeleted, modelLimitPut, modelLimitsOfCompany, modelLimitsOfProject,
		permissionSet,
		rolledAgent, rolledCompany, rolledKey, rolledLent, rolledProject, rolledUntil, rolledUntilSet, rolledUser,
		rollupAdded, rollupDayBuilt, rollupDayClosed, rollupDayLastClosed, rollupDayLate, rollupDayRolled, rollupDayTaken,
		rollupDays, rollupDaysDue, rollupDaysFound, rollupDaysOld, rollupDaysStale, rollupEmptied, rollupNext,
		spentByAgent, spentByCompany, spentByKey, spentByProject, spentByUser, spentOfLent, spentOne,
		projectArchived, projectInserted, projectOne, projectOpen, projectUpdated, projectsLoaded,
		usageOfEntries, usageOfRollups,
		routeDeleted, routeInserted, routeUpdated, routesLoaded,
		accountDeleted, accountInserted, accountOne, accountUpdated,
	}
	for _, l := range []list[statement]{accountList, adminKeyList, alertList, auditList, entryList, keyList, projectList} {
		all = append(all, l.cursor, l.ascending, l.descending)
	}
	for _, table := range companyTables {
		all = append(all, table.empty, table.count)
	}
	return all
}

func globalStatements() []globalStatement {
	return []globalStatement{
		actHeadBegun, actHeadOne, actHeadSet, actHeadTaken, actInserted, actLinked, actLinks, actPlaces, actsAll,
		installationInserted, installationOne,
		changeCounted, changePut, changesSince,
		migrationRecorded, migrationTable, migrationsApplied,
		operatorKeyInserted, operatorKeyOne, operatorKeysCounted,
		policiesAsked, serverAsked, strongRoles, tablesAsked,
		upkeepDone, upkeepDue, upkeepGone, upkeepMoved, upkeepPut, upkeepTaken,
		ownerFacts, rightsMissing, serverFacts, sqliteFacts,
	}
}

func operatorStatements() []operatorStatement {
	return []operatorStatement{companiesAudited, companyOne, companyList.cursor, companyList.ascending, companyList.descending}
}
