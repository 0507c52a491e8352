"""What the catalog says of the extension: its functions, its tables, and all of it for comparison.

In: a connection to a database with the extension.  Out: facts in Python.  Used by the tests that
must cover every object, those of later versions included; ``snapshot`` is how an upgraded
installation is compared with a fresh one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MEMBERS = """
    SELECT d.classid, d.objid FROM pg_depend d
    JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE e.extname = 'tinydancer' AND d.deptype = 'e'
"""


@dataclass(frozen=True)
class Function:
    """A function or procedure of the extension.

    Attributes:
        key: its name, with the input types behind it where there is another of that name.
        call: its qualified, quoted name.
        signature: the same with its input types, as GRANT and COMMENT want it.
        names: names of the input arguments, "" where one has none.
        types: their types.
        required: how many arguments have no default.
        public: it is in the extension's schema, not in schema tinydancer.
        level: of ``tinydancer.access_rules()``.
    """

    oid: int
    key: str
    name: str
    call: str
    signature: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    required: int
    public: bool
    procedure: bool
    language: str
    volatile: str
    parallel: str
    strict: bool
    definer: bool
    settings: tuple[str, ...]
    source: str
    comment: str | None
    public_execute: bool
    level: str

    def sql(self, arguments: dict[str, str]) -> str:
        """A call; ``arguments`` maps names (or positions, "1" ...) to SQL expressions."""
        arguments = self.by_slot(arguments)
        given = [
            expression if name.isdigit() else f"{name} := {expression}"
            for name, expression in arguments.items()
        ]
        head = "CALL" if self.procedure else "SELECT * FROM"
        return f"{head} {self.call}({', '.join(given)})"

    def by_slot(self, arguments: dict[str, str]) -> dict[str, str]:
        """``arguments`` with names in place of the positions of named arguments."""
        return {
            (self.slots()[int(key) - 1][0] if key.isdigit() else key): expression
            for key, expression in arguments.items()
        }

    def slots(self) -> list[tuple[str, str]]:
        """Each argument as ``(name or position, type)``."""
        return [
            (name or str(i), kind)
            for i, (name, kind) in enumerate(zip(self.names, self.types, strict=True), 1)
        ]


def functions(conn: Any) -> list[Function]:
    """Every function and procedure of the extension, by schema and name."""
    rows = conn.execute(
        f"""
        SELECT p.oid, p.proname, quote_ident(n.nspname) || '.' || quote_ident(p.proname),
               i.identity,
               ARRAY(SELECT coalesce((p.proargnames)[a.position], '')
                     FROM generate_series(1, coalesce(cardinality(p.proallargtypes), p.pronargs))
                          AS a (position)
                     WHERE coalesce((p.proargmodes)[a.position], 'i') IN ('i', 'b', 'v')),
               ARRAY(SELECT format_type(t.type, NULL)
                     FROM unnest(p.proargtypes) WITH ORDINALITY AS t (type, position)
                     ORDER BY t.position),
               p.pronargs - p.pronargdefaults, n.nspname <> 'tinydancer', p.prokind = 'p',
               l.lanname, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef,
               coalesce(p.proconfig, '{{}}'), p.prosrc, obj_description(p.oid, 'pg_proc'),
               has_function_privilege('public', p.oid, 'EXECUTE'),
               (SELECT string_agg(r.level, '+') FROM tinydancer.access_rules() r
                WHERE r.kind = 'ROUTINE' AND r.object = i.identity)
        FROM ({MEMBERS}) m
        JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
        JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_language l ON l.oid = p.prolang,
             LATERAL pg_identify_object('pg_proc'::regclass, p.oid, 0) i
        ORDER BY n.nspname COLLATE "C", p.proname COLLATE "C", i.identity COLLATE "C"
        """
    ).fetchall()
    names = [row[1] for row in rows]
    return [
        Function(
            row[0],
            row[1] if names.count(row[1]) == 1 else f"{row[1]}({', '.join(row[5])})",
            *row[1:4],
            tuple(row[4]),
            tuple(row[5]),
            *row[6:14],
            tuple(row[14]),
            *row[15:],
        )
        for row in rows
    ]


def tables(conn: Any) -> list[str]:
    """Tables of the extension that hold rows, partitions apart: ``tinydancer.agent`` ..."""
    return [
        row[0]
        for row in conn.execute(
            f"""
            SELECT i.identity FROM ({MEMBERS}) m
            JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
                 LATERAL pg_identify_object(m.classid, m.objid, 0) i
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
            ORDER BY i.identity COLLATE "C"
            """
        )
    ]


def partitions(conn: Any) -> list[str]:
    """Partitions of the extension's tables, those made at run time too."""
    return [
        row[0]
        for row in conn.execute(
            f"""
            SELECT format('%I.%I', n.nspname, c.relname) FROM ({MEMBERS}) m
            JOIN pg_partitioned_table p
                 ON m.classid = 'pg_class'::regclass AND p.partrelid = m.objid,
                 LATERAL pg_partition_tree(p.partrelid) t
            JOIN pg_class c ON c.oid = t.relid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE t.isleaf
            ORDER BY 1
            """
        )
    ]


def foreign_tables(conn: Any) -> list[str]:
    """Foreign tables of the extension."""
    return [
        row[0]
        for row in conn.execute(
            f"""
            SELECT i.identity FROM ({MEMBERS}) m
            JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
                 LATERAL pg_identify_object(m.classid, m.objid, 0) i
            WHERE c.relkind = 'f'
            ORDER BY i.identity COLLATE "C"
            """
        )
    ]


def columns(conn: Any, table: str) -> list[tuple[str, str]]:
    """Columns that a writer may set, as ``(quoted name, type)``, in their order."""
    return [
        (name, kind)
        for name, kind in conn.execute(
            "SELECT quote_ident(attname), format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "AND attgenerated = '' AND attidentity <> 'a' ORDER BY attnum",
            (table,),
        )
    ]


# Each query gives rows of text that hold no oid and do not depend on the order of creation.
_RELATIONS = f"""
    SELECT c.oid, i.type, i.identity FROM ({MEMBERS}) m
    JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
         LATERAL pg_identify_object(m.classid, m.objid, 0) i
"""
_SNAPSHOT = {
    "objects": f"""
        SELECT i.type, i.identity FROM ({MEMBERS}) m,
               LATERAL pg_identify_object(m.classid, m.objid, 0) i
    """,
    "functions": f"""
        SELECT i.identity, pg_get_functiondef(p.oid) FROM ({MEMBERS}) m
        JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid,
             LATERAL pg_identify_object(m.classid, m.objid, 0) i
        WHERE p.prokind IN ('f', 'p')
    """,
    "privileges": f"""
        SELECT i.type, i.identity, a.grantor::regrole::text,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
               a.privilege_type, a.is_grantable::text
        FROM ({MEMBERS}) m,
             LATERAL pg_identify_object(m.classid, m.objid, 0) i,
             LATERAL (
                 SELECT coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
                 WHERE m.classid = 'pg_proc'::regclass AND oid = m.objid
                 UNION ALL
                 SELECT coalesce(relacl, acldefault(
                     CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
                 FROM pg_class WHERE m.classid = 'pg_class'::regclass AND oid = m.objid
                 UNION ALL
                 SELECT coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
                 WHERE m.classid = 'pg_namespace'::regclass AND oid = m.objid
                 UNION ALL
                 SELECT coalesce(srvacl, acldefault('S', srvowner)) FROM pg_foreign_server
                 WHERE m.classid = 'pg_foreign_server'::regclass AND oid = m.objid
             ) AS l (acl),
             LATERAL aclexplode(l.acl) a
    """,
    "comments": f"""
        SELECT i.type, i.identity, coalesce(a.attname, ''), d.description
        FROM ({MEMBERS}) m
        JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid
        LEFT JOIN pg_attribute a ON m.classid = 'pg_class'::regclass AND d.objsubid > 0
             AND a.attrelid = m.objid AND a.attnum = d.objsubid,
             LATERAL pg_identify_object(m.classid, m.objid, 0) i
    """,
    # By name: a column that an upgrade adds comes last.
    "columns": f"""
        SELECT r.identity, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
               a.attidentity, a.attgenerated, c.collname,
               coalesce(pg_get_expr(d.adbin, d.adrelid), ''), coalesce(a.attfdwoptions::text, '')
        FROM ({_RELATIONS}) r
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_collation c ON c.oid = a.attcollation
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE r.type NOT IN ('index', 'sequence')
    """,
    "constraints": f"""
        SELECT r.identity, c.conname, pg_get_constraintdef(c.oid), c.convalidated::text
        FROM ({_RELATIONS}) r JOIN pg_constraint c ON c.conrelid = r.oid
    """,
    "indexes": f"""
        SELECT r.identity, pg_get_indexdef(x.indexrelid)
        FROM ({_RELATIONS}) r JOIN pg_index x ON x.indrelid = r.oid
    """,
    "triggers": f"""
        SELECT r.identity, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid)
        FROM ({_RELATIONS}) r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    """,
    "relations": f"""
        SELECT r.type, r.identity, c.relpersistence, c.relrowsecurity::text,
               coalesce(c.reloptions::text, ''), coalesce(pg_get_partkeydef(c.oid), ''),
               coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
               CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) ELSE '' END,
               coalesce(f.ftoptions::text, '')
        FROM ({_RELATIONS}) r
        JOIN pg_class c ON c.oid = r.oid
        LEFT JOIN pg_foreign_table f ON f.ftrelid = c.oid
    """,
    "dumped": """
        SELECT t.relid::regclass::text, t.condition
        FROM pg_extension e, LATERAL unnest(e.extconfig, e.extcondition) AS t (relid, condition)
        WHERE e.extname = 'tinydancer'
    """,
}


def snapshot(conn: Any) -> dict[str, list[tuple[Any, ...]]]:
    """The extension's objects with everything that an upgrade could forget.

    Two snapshots are equal when a fresh and an upgraded installation are.  Compare key by key: the
    difference of two sets of rows names what is missing.
    """
    found = {
        kind: sorted(conn.execute(query).fetchall(), key=str) for kind, query in _SNAPSHOT.items()
    }
    # What ships: rows that the script itself wrote.
    found["built in"] = [
        (table, row)
        for table in tables(conn)
        if "builtin" in dict(columns(conn, table))
        for (row,) in conn.execute(
            f"SELECT (to_jsonb(t) - 'created_at')::text FROM {table} t WHERE t.builtin ORDER BY 1"
        )
    ]
    return found


def rows(conn: Any, relations: list[str]) -> dict[str, list[str]]:
    """All rows of each relation as text, sorted."""
    return {
        name: sorted(row[0] for row in conn.execute(f"SELECT t::text FROM {name} t"))
        for name in relations
    }
