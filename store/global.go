package store

// globalTables are the tables that belong to no company. They hold no
// company's content: at most its id. A test compares this list and
// companyTables with the schema.
var globalTables = []string{
	"act_head",       // how long the chain of operators' acts is, and how it ends
	"act_link",       // the place of each act in it
	"change",         // which company's policy changed when
	"change_counter", // the last generation given out
	"installation",   // facts about this installation as a whole
	"migration",      // what the schema is made of
	"operator_act",   // what operators did; a company's id at most
	"operator_key",   // keys of the operator
	"operator_price", // what the operator says that models cost, whoever calls them
	"upkeep",         // which company has something to be done in the background, and when
}
