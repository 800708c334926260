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
		agentDeleted, agentInserted, agentLeft, agentOne, agentOwned, agentUpdated, agentVersionInserted, agentVersionsOf, agentVersionsOld, agentsHeld, agentsLoaded,
		contextDeleted, contextInserted, contextOne, contextUpdated, contextsLoaded, defaultAgentSet, embeddingModelSet,
		fileTracked, segmentOne, segmentPut,
		conversationBound, conversationDeleted, conversationGrown, conversationInserted, conversationMetadata, conversationOne, conversationShrunk,
		conversationSize, conversationsHeld, conversationsNext, conversationsOver, itemDeleted, itemInserted, itemOne, itemTurn, itemsRecent,
		memoryDaysLoaded, memoryDaysSet,
		alertDeleted, alertEventInserted, alertEventNext, alertEventTried, alertEventsDeleted, alertEventsDue, alertEventsOf, alertEventsOld,
		alertInserted, alertOne, alertUpdated, alertsAll, alertsCounted,
		auditAll, auditHeadBegun, auditHeadOne, auditHeadSet, auditHeadTaken, auditInserted, auditKeysFound, auditLinked,
		auditLinks, auditPlaces,
		budgetDeleted, budgetInserted, budgetOne, budgetUpdated, budgetsOfOwner, budgetsLoaded, calendarLoaded, calendarSet,
		companyBumped, companyInserted, companyLoaded, companyStatusSet, companyTombstoned,
		credentialNameDeleted, credentialNamePut, credentialNamesListed,
		credentialDeleted, credentialInserted, credentialOne, credentialProviders, credentialUpdated, credentialsListed,
		degradedSet,
		dataKeyInserted, dataKeyOne,
		identityCounted, identityDeleted, identityInserted, identityLoaded, identityOne, identityUpdated,
		ruleDeleted, ruleInserted, ruleOne, ruleUpdated, rulesCounted, rulesLoaded, rulesOfAccountDeleted, rulesOfProviderDeleted,
		entriesAhead, entriesAppended, entriesDropped, entryAppended, entryAppendedWhole,
		keptBegun, keptEnded, keptFreed, keptNext, keptOne, keptOver, keptSwept, keptUse,
		lentGranted, lentGrantsDropped, lentLoaded,
		keyInserted, keyLoaded, keyOne, keyRevoked, keyRotated, keyUpdated, keyUsed, keysOfAccountRevoked, adminKeyOne, adminKeyRevoked,
		modelLimitDeleted, modelLimitPut, modelLimitsOfCompany, modelLimitsOfProject,
		permissionSet,
		priceDeleted, priceInserted, priceUpdated, pricesLoaded,
		responseDeleted, responseOne, responsePut, responsesNext, responsesSwept,
		rolledAgent, rolledCompany, rolledKey, rolledLent, rolledProject, rolledUntil, rolledUntilSet, rolledUser,
		rollupAdded, rollupDayBuilt, rollupDayClosed, rollupDayLastClosed, rollupDayLate, rollupDayRolled, rollupDayTaken,
		rollupDays, rollupDaysDue, rollupDaysFound, rollupDaysOld, rollupDaysStale, rollupEmptied, rollupNext,
		spentByAgent, spentByCompany, spentByKey, spentByProject, spentByUser, spentOfLent, spentOne,
		projectArchived, projectInserted, projectOne, projectOpen, projectUpdated, projectsLoaded,
		usageOfEntries, usageOfRollups,
		routeDeleted, routeInserted, routeUpdated, routesLoaded,
		accountDeleted, accountInserted, accountOne, accountUpdated,
		grantGone, grantPut, grantsEverywhere, grantsInProject, grantsOfAllGone, grantsOfPrincipal, grantsOfRoleGone, grantsOfUser,
		groupDeleted, groupInserted, groupRenamed, groupsAll, inviteAccepted, inviteDeleted, inviteInserted, inviteOne, invitesPending, invitesReplaced,
		keysOfUserRevoked, memberGone, memberOfAllGone, memberPut, membersOfOneGone, ownersCounted,
		personByEmail, personDeleted, personInserted, personOne, personPasswordSet, personsOfGroup,
		roleDeleted, roleInserted, roleOne, roleUpdated, rolesAll,
		sessionEnded, sessionInserted, sessionOne, sessionSeen, sessionsEnded, sessionsOfUser, sessionsOver,
		fileDeleted, fileInserted, fileOne, fileOwned, fileReady, fileStores, filesExpired, filesHeld,
		batchesDeleted, storeCounted, storeDeleted, storeExpired, storeFileIDs, storeInserted, storeOne, storeOwned, storeTouched, storeBumped,
		storeUpdated, storesAll, storesHeld, storesPast,
		batchCancelled, batchCounted, batchInserted, batchOne, heldAttributes, heldCancelled, heldContents, heldCounted, heldDeleted,
		heldOfBatch, heldOne, heldPut,
		chunkOne, chunkPut, chunksRead, chunksSeen, chunksTrimmed,
		discardDone, discardDue, discardMoved, discardPut, discardTaken, heldRenewed, jobDue, jobFailed, jobFinished, jobRenewed,
		jobRetried, jobTaken, jobsHeld, jobsNext, storeRenewed, storeShown, storeStale,
	}
	for _, l := range []list[statement]{accountList, adminKeyList, agentList, contextList, alertList, auditList, entryList, fileList, heldList, identityList, inviteList, itemList, keyList, personList, projectList, ruleList, storeList} {
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
		audienceDeleted, audienceInserted, audienceList.cursor, audienceList.ascending, audienceList.descending, audiencesCounted,
		audiencesGone, audiencesLoaded, audiencesOfCompany,
		installationInserted, installationOne, installationReplaced, installationSet,
		changeCounted, changePut, changesSince,
		lentBlobPut, lentDeleted, lentInserted, lentListed, lentOne, lentUpdated, operatorDataKeyInserted, operatorDataKeyOne,
		migrationRecorded, migrationTable, migrationsApplied,
		operatorPriceDeleted, operatorPricePut, operatorPricesAll,
		operatorKeyInserted, operatorKeyOne, operatorKeysCounted,
		policiesAsked, serverAsked, strongRoles, tablesAsked,
		upkeepDone, upkeepDue, upkeepGone, upkeepMoved, upkeepPut, upkeepTaken,
		ownerFacts, rightsMissing, serverFacts, sqliteFacts,
	}
}

func operatorStatements() []operatorStatement {
	return []operatorStatement{companiesAudited, companyOne, companyList.cursor, companyList.ascending, companyList.descending}
}
