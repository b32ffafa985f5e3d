/** Types of the HTTP API, written by `make web-types` from its OpenAPI document. Do not edit. */

export interface paths {
    "/v1/me": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["MeResponse"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                202: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ErasureResponse"];
                    };
                };
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/me/pause": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: {
                content: {
                    "application/json": components["schemas"]["PauseRequest"] | null;
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PauseResponse"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/me/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["PauseResponse"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/me/trace": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: {
                    limit?: number;
                };
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["TraceResponse"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/provision": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/json": components["schemas"]["CodeRedemption"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["CredentialsResponse"];
                    };
                };
            };
        };
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/sites": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["SiteListResponse"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/sites/{site}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    site: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/geo+json": {
                            features: components["schemas"]["SiteFeature"][];
                            /** @constant */
                            type: "FeatureCollection";
                        } & {
                            [key: string]: unknown;
                        };
                    };
                };
            };
        };
        put: {
            parameters: {
                query?: never;
                header?: {
                    "if-match"?: string | null;
                    "if-none-match"?: string | null;
                };
                path: {
                    site: string;
                };
                cookie?: never;
            };
            requestBody: {
                content: {
                    "application/geo+json": components["schemas"]["SiteResponse"];
                };
            };
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["SiteUpdateResponse"];
                    };
                };
                201: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["SiteUpdateResponse"];
                    };
                };
            };
        };
        post?: never;
        delete: {
            parameters: {
                query?: never;
                header?: never;
                path: {
                    site: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["SiteRemovalResponse"];
                    };
                };
            };
        };
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/sites/{site}/counts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: {
                    at?: string | null;
                };
                header?: never;
                path: {
                    site: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["CountsResponse"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/sites/{site}/zones/{zone}/history": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: {
                    from?: string | null;
                    step?: number;
                    to?: string | null;
                };
                header?: never;
                path: {
                    site: string;
                    zone: string;
                };
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["ZoneHistoryResponse"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/whoami": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get: {
            parameters: {
                query?: never;
                header?: never;
                path?: never;
                cookie?: never;
            };
            requestBody?: never;
            responses: {
                200: {
                    headers: {
                        [name: string]: unknown;
                    };
                    content: {
                        "application/json": components["schemas"]["WhoAmIResponse"];
                    };
                };
            };
        };
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        AccessEntry: {
            action: string;
            actor: string;
            at: string;
            reason: string | null;
        };
        BrokerEndpoint: {
            host: string;
            port: number;
            tls: boolean;
        };
        CodeRedemption: {
            code: string;
        };
        CommandResponse: {
            answer: string;
            answered: string | null;
            /** @enum {string} */
            command: "interval" | "report" | "pause" | "message" | "zones" | "clear_zones";
            created: string;
            expires: string;
            id: string;
            interval_s: number | null;
            sent: string | null;
            /** @enum {string} */
            state: "queued" | "sent" | "acknowledged" | "refused" | "expired";
            text: string | null;
            until: string | null;
        };
        CountsResponse: {
            age_s: number;
            at: string;
            partitions_fresh: number;
            partitions_total: number;
            site: string;
            zones: components["schemas"]["ZoneCountsEntry"][];
        };
        CredentialsResponse: {
            device: string;
            /** @enum {string} */
            kind: "person" | "vehicle";
            mqtt: components["schemas"]["BrokerEndpoint"];
            owntracks: string;
            secret: string;
            site: string;
            topic: string;
            websocket: string;
        };
        ErasureResponse: {
            detail: string;
            /** @constant */
            status: "erasing";
        };
        HistoryStep: {
            at: string;
            person: components["schemas"]["KindSummary"];
            vehicle: components["schemas"]["KindSummary"];
        };
        KindCounts: {
            capacity?: number | null;
            count: number | string | null;
            high: number | null;
            low: number | null;
            share?: number | null;
            stale: number | null;
        };
        KindSummary: {
            count: number | string | null;
            max: number | null;
            mean: number | null;
            min: number | null;
        };
        MeResponse: {
            aliases: string[];
            commands: components["schemas"]["CommandResponse"][];
            connected: boolean | null;
            created: string;
            device: string;
            groups: string[];
            /** @enum {string} */
            kind: "person" | "vehicle";
            label: string;
            last: {
                [key: string]: unknown;
            } | null;
            looks: components["schemas"]["AccessEntry"][];
            resume: string | null;
            site: string;
            /** @enum {string} */
            status: "active" | "paused" | "disabled" | "erasing";
            zones: string[];
        };
        PauseRequest: {
            for_s?: number | null;
            until?: string | null;
        };
        PauseResponse: {
            resume: string | null;
            /** @enum {string} */
            status: "active" | "paused" | "disabled" | "erasing";
        };
        SiteChanges: {
            added: string[];
            changed: {
                [key: string]: string[];
            };
            moved: components["schemas"]["SiteMovedZone"][];
            removed: string[];
            renamed: components["schemas"]["SiteRenamedZone"][];
        };
        SiteEntry: {
            bbox: number[];
            id: string;
            links: components["schemas"]["SiteLinks"];
            name: string;
            timezone: string;
            zones: number;
        };
        SiteFeature: {
            geometry: {
                [key: string]: unknown;
            };
            properties: {
                [key: string]: unknown;
            };
            /** @constant */
            type: "Feature";
        } & {
            [key: string]: unknown;
        };
        SiteLinks: {
            counts: string;
            self: string;
            stream: string;
            websocket: string;
        };
        SiteListResponse: {
            sites: components["schemas"]["SiteEntry"][];
        };
        SiteMovedZone: {
            area_after_m2: number;
            area_before_m2: number;
            zone: string;
        };
        SiteRemovalResponse: {
            effective: string;
            version: number;
        };
        SiteRenamedZone: {
            after: string;
            before: string;
            zone: string;
        };
        SiteResponse: {
            features: components["schemas"]["SiteFeature"][];
            /** @constant */
            type: "FeatureCollection";
        } & {
            [key: string]: unknown;
        };
        SiteUpdateResponse: {
            changes: components["schemas"]["SiteChanges"];
            effective: string;
            version: number;
        };
        TraceCheck: {
            limit: number | null;
            line: number;
            matched: boolean;
            unit: string;
            value: number | null;
            verdict: string;
        };
        TraceEdge: {
            edge_m: number;
            inside: boolean;
            margin_m: number;
            member: boolean;
            member_before: boolean;
            zone: string;
        };
        TraceLine: {
            acc: number | null;
            changes: components["schemas"]["TraceZoneChange"][];
            checks: components["schemas"]["TraceCheck"][];
            edges: components["schemas"]["TraceEdge"][];
            lat: number | null;
            lon: number | null;
            received: string;
            rule: string;
            t: string | null;
            verdict: string | null;
            /** @enum {string} */
            what: "fix" | "online" | "offline" | "forgotten" | "site";
            why: string;
            zones: string[];
        };
        TraceRefusal: {
            /** @enum {string} */
            action: "publish" | "subscribe" | "connect";
            at: string;
            /** @enum {string} */
            reason: "slash" | "other-device" | "topic" | "characters" | "size" | "client-id" | "version";
            topic: string;
        };
        TraceResponse: {
            agrees: boolean | null;
            device: string;
            /** @enum {string} */
            kind: "person" | "vehicle";
            left: components["schemas"]["TraceZoneChange"][];
            lines: components["schemas"]["TraceLine"][];
            live: {
                [key: string]: unknown;
            } | null;
            messages: number;
            refused: components["schemas"]["TraceRefusal"][];
            since: string;
            site: string;
            truncated: boolean;
            zones: string[];
        };
        TraceZoneChange: {
            /** @enum {string} */
            reason: "moved" | "outside" | "coarse" | "silent" | "removed" | "site";
            t: string | null;
            /** @enum {string} */
            type: "enter" | "exit";
            zone: string;
        };
        WhoAmIResponse: {
            csrf: string | null;
            expires: string | null;
            login: boolean;
            name: string | null;
            /** @enum {string} */
            role: "public" | "viewer" | "operator" | "admin";
            scopes: string[];
            sites: string[];
            subject: string;
        };
        ZoneCountsEntry: {
            person: components["schemas"]["KindCounts"];
            vehicle: components["schemas"]["KindCounts"];
            zone: string;
        };
        ZoneHistoryResponse: {
            corrected: string | null;
            from: string;
            rows: components["schemas"]["HistoryStep"][];
            site: string;
            step_s: number;
            to: string;
            version: number | null;
            zone: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
