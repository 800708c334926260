// Package provider owns the way to the vendors: a row per vendor that speaks
// OpenAI's form, the one client that calls them, and the sandbox, a vendor that
// lives in this process.
//
// It does not choose: the router makes a Target, the keystore the Credential of
// the same company and provider, and Client.Send makes one attempt with both.
// Whether there is another attempt is the caller's decision, for which each
// error says if it is retriable.
package provider
