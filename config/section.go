package config

// Sections of Config that are not in config.go, which is long enough.

// Memory is about conversations.
type Memory struct {
	// For how many days after its last turn a conversation is kept, of companies
	// that have chosen no time of their own; 0 is for ever.
	// Default 90, allowed 0..36500.
	RetentionDays int64 `yaml:"retention_days" allowed:"0..36500"`

	// Tokens of earlier turns that go before a turn of a conversation, where its
	// agent does not say otherwise.
	// Default 8000, allowed 0..1000000.
	WindowTokens int64 `yaml:"window_tokens" allowed:"0..1000000"`

	// How many conversations one company has at most.
	// Default 100000, allowed 1..100000000.
	CompanyConversations int64 `yaml:"company_conversations" allowed:"1..100000000"`

	// How many items one conversation has at most.
	// Default 10000, allowed 1..1000000.
	ConversationItems int64 `yaml:"conversation_items" allowed:"1..1000000"`

	// Bytes of the items of one conversation.
	// Default 16MiB, allowed 1KiB..1GiB.
	ConversationBytes Size `yaml:"conversation_bytes" allowed:"1KiB..1GiB"`
}
